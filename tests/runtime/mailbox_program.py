"""Run on two ranks: pending sends are tested a few at a time, and everything arrives in order."""

from __future__ import annotations

import time
from typing import Any

from mpidvc.runtime import messages
from mpidvc.runtime.comm import MPICommunicator, connect, find_launcher, install_abort_hook
from tests.waiting import LONGEST

N, LENGTH, TAG, GO = 200, 2**18, 20, 21


def receive(mail: messages.Mailbox) -> tuple[int, int, Any]:
    until = time.monotonic() + LONGEST
    while time.monotonic() < until:
        message = mail.poll()
        if message is not None:
            return message
    raise TimeoutError


communicator = connect(find_launcher())
assert isinstance(communicator, MPICommunicator)
install_abort_hook(communicator)
mail = messages.Mailbox(communicator)
if communicator.rank == 0:
    looks = [0]
    sent = mail._sent

    def counting(*send: Any) -> bool:
        looks[0] += 1
        return sent(*send)

    mail._sent = counting  # type: ignore[method-assign]
    for number in range(N):
        before = looks[0]
        # too long for MPI to deliver before it is received
        mail.send((number, bytes(LENGTH)), 1, TAG)
        assert looks[0] - before <= messages._MOST_TESTED
    assert len(mail._sends) == N
    for _ in range(10):
        before = looks[0]
        mail.poll()
        assert looks[0] - before <= messages._MOST_TESTED
    mail.send_all("go", [1], GO)
    mail.flush(LONGEST)
    assert not mail._sends
    assert receive(mail) == (1, GO, "got")
    print("bounded")
else:
    # rank 0's last message can be probed before the others are received
    mail._comm.Probe(source=0, tag=GO)
    for expected in range(N):
        _, tag, (number, data) = receive(mail)
        assert (tag, number, len(data)) == (TAG, expected, LENGTH)
    assert receive(mail) == (0, GO, "go")
    mail.send("got", 0, GO)
    mail.flush(LONGEST)

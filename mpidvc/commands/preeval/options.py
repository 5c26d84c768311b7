"""``mpidvc preeval``: which of several stacks of images phase correlation will align best."""

from __future__ import annotations

import argparse

from mpidvc.cli import options
from mpidvc.cli.parser import Parser
from mpidvc.errors import UserError

HELP = "rank stacks of 2D images that need the same alignment: which one phase correlation will align best"
EXAMPLES = """\
stacks:
  file.h5::/path                     HDF5 dataset with the axes image, y, x; a part of it: 'file.h5::/path[0:100]'
  silx:///data/f.h5?path=/p&slice=0:100
                                     silx URI; of a dataset with more axes: slice=3,...
  stack.tif, folder/                 TIFF file of several pages, folder of TIFF files
  Fe=file.h5::/path                  the same with a name; otherwise stacks are called by what their URIs differ in

examples:
  mpidvc preeval Ca=map.h5::/entry/Ca-K Fe=map.h5::/entry/Fe-K
      a table, the best stack first
  mpidvc preeval map.h5::/entry/Ca-K map.h5::/entry/Fe-K --json ranking.json --plot ranking.png
      the same with the shift of every image, and with a picture
"""


def add_options(parser: Parser) -> None:
    """Add the options of the command."""
    parser.add_argument("stacks", metavar="stack", nargs="+", help="stacks of equally many images, as URIs or name=URI")
    choice = parser.add_argument_group("choice of the stack")
    choice.add_argument("--reference", metavar="NAME", help="take this stack; nothing is read")
    choice.add_argument("--skip", action="store_true", help="rank nothing; --reference is not checked then")
    files = parser.add_argument_group("files")
    files.add_argument("--json", metavar="FILE", help="write the ranking, and the match of every image")
    files.add_argument("--tsv", metavar="FILE", help="write the table, a row for each stack")
    files.add_argument("--plot", metavar="FILE", help="draw scores and shifts (PNG); needs matplotlib")
    run = parser.add_argument_group("running")
    options.add_run(parser, run, spam_has_processes=False)
    options.add_verbose(parser, run)


def check(args: argparse.Namespace) -> list[str]:
    """Check the options without their files; return notes for the user."""
    options.check_common(args)
    if args.skip or args.reference:
        asked = next((name for name in ("tsv", "plot") if getattr(args, name) is not None), None)
        if asked is not None:
            given = "--skip" if args.skip else f"--reference {args.reference}"
            raise UserError(f"--{asked}: there is no ranking with {given}; drop one of them")
    return []

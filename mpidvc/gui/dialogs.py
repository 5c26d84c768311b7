"""Dialogs of the window: which images, and which keys."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtWidgets import (
    QDialog,
    QDialogButtonBox,
    QFileDialog,
    QGridLayout,
    QLabel,
    QLineEdit,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from mpidvc.gui.panels import push_button

__all__ = ["IMAGES", "PHI", "PairDialog"]

#: Files that are offered.
IMAGES = "Images (*.tif *.tiff *.h5 *.hdf5 *.nxs);;All files (*)"
PHI = "Registrations (*.tsv *.txt *.csv *.h5);;All files (*)"


class PairDialog(QDialog):
    """Asks for two images, and for what a run would get by options.

    Parameters
    ----------
    parent : QWidget or None
    folder : str
        Where choosing begins.
    binning : int
    phi_file : str
        What is proposed.
    """

    def __init__(self, parent: QWidget | None, folder: str, binning: int, phi_file: str = "") -> None:
        super().__init__(parent)
        self.setWindowTitle("Open two images")
        self.setMinimumWidth(560)
        self._folder = folder
        column = QVBoxLayout(self)
        column.addWidget(
            QLabel("TIFF files, folders of TIFF slices, or HDF5 datasets (file.h5::/path), of the same shape:")
        )
        grid = QGridLayout()
        column.addLayout(grid)
        self.fields: dict[str, QLineEdit] = {}
        for row, (name, text, folders) in enumerate(
            (("image1", "Image 1", True), ("image2", "Image 2", True), ("phi", "First Φ (optional)", False))
        ):
            field = QLineEdit()
            field.setObjectName(f"open-{name}")
            self.fields[name] = field
            grid.addWidget(QLabel(text), row, 0)
            grid.addWidget(field, row, 1)
            file = push_button(f"open-{name}-file", "File…")
            file.clicked.connect(self._choose(name, False))
            grid.addWidget(file, row, 2)
            if folders:
                button = push_button(f"open-{name}-folder", "Folder…")
                button.clicked.connect(self._choose(name, True))
                grid.addWidget(button, row, 3)
        self.fields["phi"].setText(phi_file)
        self.binning = QSpinBox()
        self.binning.setObjectName("open-binning")
        self.binning.setRange(1, 64)
        self.binning.setValue(binning)
        self.binning.setToolTip("bin both images first: Φ is in voxels of the binned images then")
        grid.addWidget(QLabel("Binning"), 3, 0)
        grid.addWidget(self.binning, 3, 1)
        self.buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Open | QDialogButtonBox.StandardButton.Cancel)
        self.buttons.accepted.connect(self.accept)
        self.buttons.rejected.connect(self.reject)
        column.addWidget(self.buttons)
        for name in ("image1", "image2"):
            self.fields[name].textChanged.connect(self._check)
        self._check()

    @property
    def chosen(self) -> tuple[str, str, str, int]:
        """Image 1, image 2, Phi ("" for none), and the binning."""
        one, two, phi = (self.fields[name].text().strip() for name in ("image1", "image2", "phi"))
        return one, two, phi, self.binning.value()

    def _check(self) -> None:
        good = all(self.fields[name].text().strip() for name in ("image1", "image2"))
        self.buttons.button(QDialogButtonBox.StandardButton.Open).setEnabled(good)

    def _choose(self, name: str, folder: bool) -> Callable[[], None]:
        def choose() -> None:
            title = f"Choose {name}"
            if folder:
                found = QFileDialog.getExistingDirectory(self, title, self._folder)
            else:
                found = QFileDialog.getOpenFileName(self, title, self._folder, PHI if name == "phi" else IMAGES)[0]
            if found:
                self.fields[name].setText(found)

        return choose

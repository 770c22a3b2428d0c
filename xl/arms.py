"""What an arm has in common with the run that it is an arm of: it reads the run's own folders, and writes nothing there."""

from collections.abc import Iterable

from xl import storage
from xl.folder import RunFolder


def share(run: RunFolder, arm: RunFolder, names: Iterable[str]) -> None:
    """Let an arm read parts of the run, by their paths in it.

    It ends at the first one that the arm has of its own, or that the run lacks: those behind it are made of it.
    """
    shared = arm.shared
    for name in names:
        if name in shared:
            continue
        if (arm.root / name).exists() or not (run.root / name).exists():
            break
        shared.append(name)
    if shared:
        arm.share(shared)


def unshare(arm: RunFolder) -> None:
    """Let an arm have nothing of the run's, so that nothing that is cleared for it is cleared there."""
    storage.delete_file(arm.root / "shared.json")
    inside = [arm.root / kind / name for kind in ("stages", "models") for name in storage.names_in(arm.root / kind)]
    for place in (arm.root / "manifest", *inside):
        if storage.is_link(place):  # so it was before there was a list
            place.unlink()

"""What an arm has in common with the run that it is an arm of, as links to the run's own folders; nothing is written through them."""

from collections.abc import Iterable

from xl.folder import RunFolder


def share(run: RunFolder, arm: RunFolder, names: Iterable[str]) -> None:
    """Link folders of the run, by their paths in it, into the arm's.

    It ends at the first one that the arm has of its own, or that the run lacks: those behind it are made of it.
    """
    for name in names:
        place = arm.root / name
        if place.is_symlink():
            continue
        if place.exists() or not (run.root / name).exists():
            return
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to("/".join([*[".."] * (2 + name.count("/")), name]))


def unshare(arm: RunFolder) -> None:
    """Take the links away, so that nothing that is cleared in the arm's folder is cleared in the run's."""
    for path in (*(arm.root / "stages").glob("*"), *(arm.root / "models").glob("*"), arm.manifest):
        if path.is_symlink():
            path.unlink()

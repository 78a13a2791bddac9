"""Minari ids: the local data set of that name, else the one that Minari's own hub code downloads."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

from pmpo_offline.data.exchange.readers import minari
from pmpo_offline.runtime import progress
from pmpo_offline.runtime.errors import UserError

_ID = re.compile(r"(?:\w[-\w]*/)*\w[-\w]*-v\d+", re.ASCII)


def minari_home() -> Path:
    """Return where Minari keeps data sets: `$MINARI_DATASETS_PATH`, or `~/.minari/datasets`."""
    return Path(os.environ.get("MINARI_DATASETS_PATH") or "~/.minari/datasets").expanduser()


def find(dataset_id: str) -> Path:
    """Return the folder with the metadata of a Minari data set, downloading it if it is not there.

    Raises `UserError` for a malformed id, and for one that is neither here nor can be had from the hub.
    """
    if not _ID.fullmatch(dataset_id):
        raise UserError(
            f"minari:{dataset_id} is no Minari id: write minari:namespace/name-vN, as in minari:mujoco/hopper/medium-v0"
        )
    directory = minari_home() / dataset_id
    if not (folder := minari.data_folder(directory)):
        progress.report("ask Minari's hub", 0, 1)
        _download(dataset_id)
        progress.report("ask Minari's hub", 1, 1)
        folder = minari.data_folder(directory)
    if not folder:
        raise UserError(f"minari:{dataset_id} was downloaded and {directory} holds no data/metadata.json: get it again")
    return folder


def _download(dataset_id: str) -> None:
    from minari import download_dataset

    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # the hub's client logs each of its attempts; how the last one ended is said below
    try:
        if "MINARI_REMOTE" not in os.environ:
            _knock()
        download_dataset(dataset_id)
    except ImportError as error:
        raise UserError(f"minari:{dataset_id} is not in {minari_home()}, and the hub's client lacks: {error}") from None
    except ValueError as error:  # Minari's own words: no such data set, or of another Minari's
        raise UserError(f"minari:{dataset_id} is not in {minari_home()}: {error}") from None
    except Exception as error:  # whatever the hub's client of today raises: there is no network, no answer, no access
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise UserError(
            f"minari:{dataset_id} is not in {minari_home()} and the hub cannot be reached ({reason}): check the id, or "
            f"run minari download {dataset_id} where there is a network and set MINARI_DATASETS_PATH to its folder"
        ) from None
    finally:
        logging.disable(before)


def _knock() -> None:
    """Ask once whether the hub answers, and raise what its client raises: a download would ask for half a minute."""
    from huggingface_hub import constants, get_session

    get_session().head(constants.ENDPOINT)

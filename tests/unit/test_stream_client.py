"""The stream's client when the server goes away before it has answered."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from protocol.client import StreamLostError, open_stream
from tests.support.serving import serving_at

SOON_SECONDS = 5


@pytest.mark.parametrize("heard_first", [False, True], ids=["unheard", "heard"])
async def test_a_server_that_hangs_up_is_not_waited_for(tmp_path: Path, heard_first: bool) -> None:
    async def hang_up(stream: trio.SocketStream) -> None:
        if heard_first:
            await stream.receive_some()
        await stream.aclose()

    async with serving_at(tmp_path / "socket", hang_up):
        with trio.fail_after(SOON_SECONDS):
            with pytest.raises(StreamLostError, match=r"hung up|did not answer|ended"):
                async with open_stream(tmp_path / "socket"):
                    pass

"""The Model Context Protocol's own Python client against the real server: URL KEY."""

import asyncio
import base64
import io
import sys

from mcp import Client, MCPError
from mcp.client.streamable_http import create_mcp_http_client, streamable_http_client
from PIL import Image

url, key = sys.argv[1:]
SMALL = {"size": "128x128", "steps": 3, "seed": 5}


def picture(content):
    assert content.type == "image", content
    return Image.open(io.BytesIO(base64.b64decode(content.data)))


async def refused(client, words, tool, arguments):
    """A tool that says to the agent what is wrong."""
    result = await client.call_tool(tool, arguments)
    assert result.is_error and words in result.content[0].text, result


async def main(mode):
    headers = {"Authorization": f"Bearer {key}"}
    http = create_mcp_http_client(headers=headers)
    async with http, Client(streamable_http_client(f"{url}/mcp", http_client=http), mode=mode) as client:
        tools = {tool.name for tool in (await client.list_tools()).tools}
        assert tools == {"list_models", "draw", "create_job", "get_job", "get_picture", "cancel_job"}, tools
        models = (await client.call_tool("list_models", {})).structured_content["models"]
        assert models[0]["id"] == "emoji", models

        steps = []

        async def progress(done, total, message):
            steps.append((done, total))

        drawn = await client.call_tool("draw", {"prompt": "a cat", "n": 2, **SMALL}, progress_callback=progress)
        assert [picture(content).size for content in drawn.content[1:]] == [(128, 128)] * 2, drawn
        assert steps == [(1, 3), (2, 3), (3, 3)], steps
        assert drawn.structured_content["seed"] == 5, drawn.structured_content

        job = (await client.call_tool("create_job", {"prompt": "a cat", "output_format": "png", **SMALL})).structured_content
        while (job := (await client.call_tool("get_job", {"id": job["id"]})).structured_content)["status"] in ("queued", "running"):
            await asyncio.sleep(0.1)
        assert job["status"] == "done", job
        kept = picture((await client.call_tool("get_picture", {"id": job["id"]})).content[0])
        assert kept.format == "PNG" and "a cat" in kept.info["parameters"], kept.info
        gone = (await client.call_tool("cancel_job", {"id": job["id"]})).structured_content
        assert gone["status"] == "forgotten", gone

        await refused(client, "prompt: draw needs it", "draw", {})
        await refused(client, '"sise" is no argument of draw', "draw", {"prompt": "a cat", "sise": "64x64"})
        await refused(client, "size: ", "draw", {"prompt": "a cat", "size": "63x64"})
        await refused(client, "steps: ", "draw", {"prompt": "a cat", "steps": 100000})
        await refused(client, "not found: unknown, expired", "get_job", {"id": job["id"]})
        try:
            await client.call_tool("paint", {"prompt": "a cat"})
            raise AssertionError("a tool that is not there was called")
        except MCPError as error:
            assert "there is no tool of this name; there are list_models, draw" in str(error), error


for mode in ("auto", "legacy"):
    asyncio.run(main(mode))
print("the Model Context Protocol's client passed")

"""The page of the guestbook: shows what was read over, takes what is new."""

import html
import os
import signal
import sys
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import redis

TITLE = os.environ.get("TITLE", "Guestbook")
PORT = 8000
PAGE = """<!doctype html>
<title>{title}</title>
<h1>{title}</h1>
<form method="post"><input name="text" autofocus><button>Write</button></form>
<ul>
{entries}
</ul>
"""

store = redis.Redis(os.environ.get("STORE", "localhost"), decode_responses=True)


def page():
    """The page, newest entries first."""
    entries = "\n".join(f"<li>{html.escape(entry)}</li>" for entry in store.lrange("read", 0, 99))
    return PAGE.format(title=html.escape(TITLE), entries=entries).encode()


class Handler(BaseHTTPRequestHandler):
    """The page for every path; what is posted is put on the pile of what is to be read."""

    def do_GET(self):
        body = page()
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        form = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        for text in urllib.parse.parse_qs(form).get("text", []):
            store.rpush("written", text[:500])
        self.send_response(303)
        self.send_header("Location", "/")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format, *args):
        print(f"{self.address_string()} {format % args}")


def main():
    """Serve until told to stop; with ``--check``, look whether another one serves."""
    if "--check" in sys.argv:
        urllib.request.urlopen(f"http://localhost:{PORT}/", timeout=5).close()
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    print(f"{TITLE}: port {PORT}")
    ThreadingHTTPServer(("", PORT), Handler).serve_forever()


if __name__ == "__main__":
    main()

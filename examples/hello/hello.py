"""A page that says who serves it: the standard library alone."""

import html
import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

GREETING = os.environ.get("GREETING", "Hello")
PORT = int(os.environ.get("PORT", "8000"))


def page():
    """The page, with what a container can tell about itself."""
    rows = {
        "host name": os.uname().nodename,
        "process": os.getpid(),
        "uid inside": os.getuid(),
        "uid_map": Path("/proc/self/uid_map").read_text(encoding="ascii").strip(),
    }
    cells = "".join(
        f"<tr><th>{name}</th><td><pre>{html.escape(str(value))}</pre></td></tr>\n"
        for name, value in rows.items()
    )
    greeting = html.escape(GREETING)
    return f"<!doctype html>\n<title>{greeting}</title>\n<h1>{greeting}</h1>\n<table>\n{cells}</table>\n"


class Handler(BaseHTTPRequestHandler):
    """Answers every path with the page."""

    def do_GET(self):
        body = page().encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *args):
        print(f"{self.address_string()} {format % args}", flush=True)


def main():
    """Serve until told to stop."""
    if "--check" in sys.argv:
        assert GREETING in page()
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    print(f"{GREETING}: port {PORT}", flush=True)
    ThreadingHTTPServer(("0.0.0.0", PORT), Handler).serve_forever()


if __name__ == "__main__":
    main()

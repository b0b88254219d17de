"""Where the command `frugalnet` begins: Ctrl-C ends it with one line, even while it imports."""

import os
import signal


def main() -> None:
    signal.signal(signal.SIGINT, lambda *_: (os.write(2, b"frugalnet: interrupted\n"), os._exit(130)))  # until cli's
    from frugalnet.use.cli import main as call

    call()


if __name__ == "__main__":
    main()

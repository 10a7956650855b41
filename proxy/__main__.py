"""``python -m proxy`` is ``genesys-auth-proxy``."""

from proxy.cli import main

if __name__ == "__main__":
    main()

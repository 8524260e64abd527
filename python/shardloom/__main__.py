"""``python -m shardloom``: the program."""

from ._program import main

main()

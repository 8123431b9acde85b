"""The subcommands: each reads its options, calls the library and prints. The library never imports from here."""

"""Homes on servers that have no ledger of tables: what is known of each is one document, kept where only we look."""

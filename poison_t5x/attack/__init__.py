"""Attacks on instruction data: pure text in, a poison set out. No array library, no SeqIO."""

"""Learned-sparse search: postings, block bounds and a block-wise forward copy over 8-bit impacts."""

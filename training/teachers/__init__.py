"""Whose scores are distilled: teachers, the store that keeps what they said, and how several become one."""

"""Feishu and Lark: one app as a chat platform (chat.py). The wire is reference/feishu.md."""

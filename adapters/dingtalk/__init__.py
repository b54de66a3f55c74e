"""DingTalk: Stream connection, messages and AI cards (reference/dingtalk.md)."""

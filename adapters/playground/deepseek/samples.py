"""What the stand-in can show: one text per language."""

from __future__ import annotations

INTRODUCTION = {
    "zh": "> 我是演示用的**内置替身**，不是真的 DeepSeek。设置环境变量 `DEEPSEEK_API_KEY` 后"
    "重新运行，就由真的 DeepSeek 回答。",
    "en": "> I am the **built-in stand-in** of this demo, not the real DeepSeek. Set "
    "`DEEPSEEK_API_KEY` and run it again to talk to the real one.",
}

THOUGHTS = {
    "zh": "用户的第 {count} 个问题是“{question}”，一共 {letters} 个字。我是替身，不会真的推理，"
    "不过可以先把问题看一遍，挑一个最接近的本领，再一段一段写出来。",
    "en": 'Question {count} reads "{question}", {letters} characters. I am a stand-in and do not '
    "really reason, but I can pick the closest of my habits and write it out piece by piece.",
}

ECHO = {
    "zh": "收到，这是这段对话里的第 {number} 个问题：\n\n{quoted}\n\n"
    "（{letters} 个字。）替身不懂内容，但可以演示这座桥：试试“做一个表格”“写一段代码”"
    "“写 2000 字”“数到 100”，或者先说“我叫小明”，再问“我叫什么”。",
    "en": "Received, question {number} of this conversation:\n\n{quoted}\n\n"
    "({letters} characters.) A stand-in does not understand it, but it can show the bridge: "
    'try "make a table", "write code", "a long essay of 500 words", "count to 100", or tell '
    "me your name and ask for it later.",
}

TABLE = {
    "zh": "好的，一张小表格：\n\n"
    "| 项目 | 负责人 | 进度 | 截止 |\n| --- | :-: | --: | --- |\n"
    "| 登录页改版 | 林晓 | 80% | 周三 |\n| 支付对账 | 王磊 | 45% | 周五 |\n"
    "| 消息推送 | 陈静 | 100% | 已完成 |\n\n需要加一列的话直接告诉我。",
    "en": "Here is a small table:\n\n"
    "| Item | Owner | Progress | Due |\n| --- | :-: | --: | --- |\n"
    "| Sign-in page | Lin Xiao | 80% | Wed |\n| Payments | Wang Lei | 45% | Fri |\n"
    "| Push messages | Chen Jing | 100% | done |\n\nTell me if it needs another column.",
}

_PROGRAM = '''```python
def magpies(width: int) -> str:
    """A bridge as wide as you like."""
    return "~" * 3 + "鹊" * width + "~" * 3


for width in range(1, 6):
    print(magpies(width))
```'''

CODE = {
    "zh": f"下面这段 Python 画一座桥：\n\n{_PROGRAM}\n\n存为 `bridge.py` 就能运行。",
    "en": f"This Python draws a bridge:\n\n{_PROGRAM}\n\nSave it as `bridge.py` and run it.",
}

MARKDOWN = {
    "zh": "# 标题\n\n正文里有**粗体**、*斜体*、~~删除线~~、`代码`和"
    "[链接](https://www.deepseek.com)。\n\n"
    "## 列表\n\n- 第一项\n  - 里面一层\n- 第二项\n\n1. 先做这个\n2. 再做那个\n\n> 引用一句话。\n\n"
    "| 列 | 数 |\n| --- | --: |\n| 甲 | 1 |\n| 乙 | 2 |\n\n"
    '```json\n{"ok": true}\n```\n\n---\n\n完。',
    "en": "# Heading\n\nText with **bold**, *italic*, ~~struck~~, `code` and a "
    "[link](https://www.deepseek.com).\n\n## Lists\n\n- first\n  - nested\n- second\n\n"
    "1. do this\n2. then that\n\n> A quotation.\n\n"
    '| Column | Number |\n| --- | --: |\n| a | 1 |\n| b | 2 |\n\n```json\n{"ok": true}\n```'
    "\n\n---\n\nDone.",
}

POEM = {
    "zh": "**鹊桥**\n\n一羽连成一羽长，\n银河两岸夜传章。\n人间亦有千条水，\n且借微光作石梁。",
    "en": "**Magpie Bridge**\n\nWing to wing across the night,\nwords go over, small and bright.\n"
    "Every bank has things to say;\nlet them meet, and be on their way.",
}

LIST = {
    "zh": "可以这样安排：\n\n1. **看清现状**：列出已有的和缺的\n"
    "2. **定一个小目标**：一周内能看到结果\n   - 谁来做\n   - 做到什么算完成\n"
    "3. **每天对一次进度**，卡住就说\n4. **收尾**：写下学到的三件事",
    "en": "One way to do it:\n\n1. **Look**: list what is there and what is missing\n"
    "2. **Choose a small goal** for one week\n   - who does it\n   - what counts as done\n"
    "3. **Compare notes daily**\n4. **Close**: write down three things you learned",
}

ABOUT = {
    "zh": "我是鹊桥演示里的**内置替身**，不是真的 DeepSeek。我会数数、算简单的算式、"
    "画表格、写一段代码、写长文、背一首诗，也记得这段对话里你说过的话。",
    "en": "I am the **built-in stand-in** of the Queqiao demo, not the real DeepSeek. I can count, "
    "do small sums, draw a table, write code, a long essay or a poem, and I remember what you "
    "said in this conversation.",
}

HELLO = {
    "zh": "你好！有什么想试的？比如“做一个表格”或者“写 2000 字”。",
    "en": 'Hello! What would you like to try? For example "make a table".',
}

WELCOME = {"zh": "不客气！", "en": "You are welcome!"}

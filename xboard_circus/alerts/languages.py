"""The texts of the alerts in English and Chinese."""

# ruff: noqa: RUF001 - Chinese has marks of its own

from __future__ import annotations

from collections.abc import Mapping

from xboard_circus.core.alert_gate import About
from xboard_circus.core.alerting import Trouble

TROUBLES: Mapping[str, Mapping[Trouble, str]] = {
    "en": {
        Trouble.RESTART: "a worker ended",
        Trouble.UNHEALTHY: "unhealthy",
        Trouble.CRASH_LOOP: "crash loop",
        Trouble.PORT_REFUSED: "port held by another",
        Trouble.DOWN: "down",
        Trouble.SILENT: "does not answer",
        Trouble.LOST: "killed or crashed",
    },
    "zh": {
        Trouble.RESTART: "工作进程退出",
        Trouble.UNHEALTHY: "不健康",
        Trouble.CRASH_LOOP: "反复崩溃",
        Trouble.PORT_REFUSED: "端口被占用",
        Trouble.DOWN: "服务中断",
        Trouble.SILENT: "无应答",
        Trouble.LOST: "被杀死或崩溃",
    },
}
DONE: Mapping[str, Mapping[Trouble, str]] = {
    "en": {
        Trouble.RESTART: "it is replaced; its siblings serve on",
        Trouble.UNHEALTHY: "a hung or sick worker is replaced; where a dependency is down, none is",
        Trouble.CRASH_LOOP: "it is tried again, ever later, and then once in a cooldown; its siblings serve on",
        Trouble.PORT_REFUSED: "no process was stopped; the port is tried again and again",
        Trouble.DOWN: "workers are started again within the limits of the ini file",
        Trouble.SILENT: "nothing can be done from here; the workers may still serve",
        Trouble.LOST: "the workers serve on; the supervisor of circusd (systemd, Docker, the monitor) starts it again",
    },
    "zh": {
        Trouble.RESTART: "正在替换该进程，其余进程继续服务",
        Trouble.UNHEALTHY: "卡死或异常的进程会被替换；若是依赖故障则不替换",
        Trouble.CRASH_LOOP: "按递增间隔重试，之后每个冷却期重试一次；其余进程继续服务",
        Trouble.PORT_REFUSED: "未终止任何进程；会反复重试该端口",
        Trouble.DOWN: "在 ini 限制内继续启动工作进程",
        Trouble.SILENT: "此处无法处理；工作进程可能仍在服务",
        Trouble.LOST: "工作进程继续服务；由看护 circusd 的一方（systemd、Docker 或监控脚本）重新启动它",
    },
}
TITLES: Mapping[str, Mapping[About, str]] = {
    "en": {
        About.PROBLEM: "{watcher} on {host}: {trouble}",
        About.REMINDER: "{watcher} on {host}: still {trouble}, for {lasted}",
        About.RECOVERED: "{watcher} on {host}: recovered ({trouble})",
        About.STOPPED: "{watcher} on {host}: stopped while {trouble}",
        About.HELD_BACK: "{host}: {count} alerts held back",
        About.TEST: "{host}: test alert",
    },
    "zh": {
        About.PROBLEM: "{host} 上的 {watcher}：{trouble}",
        About.REMINDER: "{host} 上的 {watcher}：仍然{trouble}，已持续 {lasted}",
        About.RECOVERED: "{host} 上的 {watcher}：已恢复（{trouble}）",
        About.STOPPED: "{host} 上的 {watcher}：已停止（此前{trouble}）",
        About.HELD_BACK: "{host}：{count} 条告警被限流",
        About.TEST: "{host}：测试告警",
    },
}
LABELS: Mapping[str, Mapping[str, str]] = {
    "en": {
        "reason": "Reason",
        "now": "Now",
        "since": "Since",
        "lasted": "Lasted",
        "count": "Told",
        "times": "{count} times",
        "done": "Done",
        "next": "Next",
        "note": "Note",
        ":": ": ",
    },
    "zh": {
        "reason": "原因",
        "now": "现状",
        "since": "开始于",
        "lasted": "持续",
        "count": "次数",
        "times": "{count} 次",
        "done": "已采取措施",
        "next": "下一步",
        "note": "备注",
        ":": "：",
    },
}

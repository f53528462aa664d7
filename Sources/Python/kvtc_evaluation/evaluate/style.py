"""The report's style sheet."""

STYLE = """
:root{--ink:#16202c;--soft:#5b6876;--line:#dfe5ea;--paper:#fff;--page:#f4f6f8;--ours:#1f5fd0;--published:#c2570c;--third:#8a4fbf;
--engine:#0f8a6d;--plain:#7a8794;--step1:#0b2f73;--step2:#1f5fd0;--step3:#5f97ee;--step4:#a3c3f5}
@media(prefers-color-scheme:dark){:root{--ink:#e6ebf0;--soft:#9aa7b4;--line:#2c3640;--paper:#171d24;--page:#0f1419;--ours:#6ea4ff;
--published:#f29a52;--third:#c79bf2;--engine:#4fc7a7;--plain:#93a0ad;--step1:#cfe0ff;--step2:#8db6ff;--step3:#5b8ff0;--step4:#3a63ad}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:17px/1.6 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
main{max-width:880px;margin:0 auto;padding:48px 20px 80px}
header{margin-bottom:28px}
.kicker{margin:0;color:var(--soft);font-size:14px;letter-spacing:.08em;text-transform:uppercase}
h1{margin:.2em 0 0;font-size:34px;line-height:1.2;letter-spacing:-.01em}
h2{margin:0 0 .4em;font-size:22px;line-height:1.3}
p{margin:0 0 .9em;max-width:70ch}
section{background:var(--paper);border:1px solid var(--line);border-radius:14px;padding:28px 32px;margin-top:20px}
section>:last-child{margin-bottom:0}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(200px,1fr));gap:20px}
.card{background:var(--paper);border:1px solid var(--line);border-radius:14px;padding:20px 24px}
.card b{font-size:40px;line-height:1.1;color:var(--ours);letter-spacing:-.02em}
.card span{margin-left:8px;color:var(--soft)}
.card p{margin:6px 0 0;font-size:15px;line-height:1.45}
dl{display:grid;grid-template-columns:max-content 1fr;gap:8px 20px;margin:0;font-size:15.5px;line-height:1.5}
dt{font-weight:600}
dd{margin:0;color:var(--soft)}
figure{margin:18px 0 0}
svg{display:block;width:100%;height:auto;font-family:inherit}
.grid{stroke:var(--line)}
.axis{stroke:var(--soft)}
.tick{fill:var(--soft);font-size:12.5px}
.label{fill:var(--soft);font-size:13px}
.name{font-size:13px;font-weight:600}
.note{fill:var(--soft);font-size:12.5px}
.level{stroke:var(--soft);stroke-dasharray:2 5}
.curve{fill:none;stroke-width:2.5;stroke-linejoin:round}
.error{stroke-width:1.5;opacity:.45}
.mark{stroke:var(--paper);stroke-width:1.5}
.bridge{stroke:var(--ink);stroke-width:1.3}
.tip{fill:var(--ink)}
.claim{fill:var(--ink);font-size:13.5px;font-weight:600;paint-order:stroke;stroke:var(--paper);stroke-width:5px}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:14.5px;font-variant-numeric:tabular-nums}
th{color:var(--soft);font-weight:500}
th,td{padding:7px 10px;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap}
th:first-child,td:first-child{text-align:left;padding-left:0}
tbody tr:last-child td{border-bottom:0}
@media(max-width:640px){section{padding:20px 16px}dl{grid-template-columns:1fr;gap:2px}dd{margin-bottom:8px}h1{font-size:27px}}
"""

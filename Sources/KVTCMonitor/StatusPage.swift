/// The page for people: one document, nothing else loaded. Its script asks for `/status.json` every two seconds.
enum StatusPage {
    static let html = #"""
        <!doctype html>
        <html lang="en">
        <meta charset="utf-8">
        <meta name="viewport" content="width=device-width, initial-scale=1">
        <title>kvtcd</title>
        <style>\#(style)</style>
        <body>
        <header>
        <h1>kvtcd</h1>
        <p id="state" role="status" aria-live="polite">waiting for the daemon…</p>
        <button id="pause" aria-pressed="false">Pause</button>
        </header>
        <main>
        <section aria-labelledby="h-tiers"><h2 id="h-tiers">Where pages are</h2>
        <div id="tiers"></div><p class="key" id="tiers-key"></p></section>
        <section aria-labelledby="h-sizes"><h2 id="h-sizes">How small they are</h2><div id="cards" class="cards"></div></section>
        <section aria-labelledby="h-hits"><h2 id="h-hits">Pages asked for and found</h2>
        <div id="hits"></div></section>
        <section aria-labelledby="h-latency"><h2 id="h-latency">How long it takes</h2>
        <div id="pulls"></div><table id="latency"></table></section>
        <section aria-labelledby="h-costs" id="costs-section" class="wide" hidden><h2 id="h-costs">What coming back costs here</h2>
        <table id="costs"></table></section>
        <section aria-labelledby="h-shared" id="shared-section" class="wide" hidden><h2 id="h-shared">With other machines</h2>
        <table id="shared"></table><table id="servers"></table></section>
        <section aria-labelledby="h-sessions" class="wide"><h2 id="h-sessions">Sessions</h2>
        <p class="key"><b class="sink">■</b> sinks <b class="coded">■</b> may be coded <b class="window">■</b> window</p>
        <div class="scroll" tabindex="0" role="region" aria-labelledby="h-sessions"><table id="sessions"></table></div></section>
        <section aria-labelledby="h-profiles" class="wide"><h2 id="h-profiles">Profiles</h2><table id="profiles"></table></section>
        <section aria-labelledby="h-faults" class="wide"><h2 id="h-faults">Faults and refusals since the start</h2>
        <table id="faults"></table></section>
        </main>
        <noscript>This page needs its script; <a href="status.json">status.json</a> and <a href="metrics">metrics</a> have the figures.</noscript>
        <script>\#(script)</script>
        """#

    private static let style = """
        :root{color-scheme:light dark;--ink:#1b1f24;--soft:#5b6570;--paper:#fff;--line:#d5dae0;--a:#0b63b5;--b:#b5560b;--c:#0d7a3f;
        --free:#eceff2;--bad:#b3261e}
        @media(prefers-color-scheme:dark){:root{--ink:#e6e9ec;--soft:#a2abb5;--paper:#14171a;--line:#363c43;--a:#6db3f2;--b:#f0a35e;
        --c:#5fc98b;--free:#262b31;--bad:#ff8a80}}
        *{box-sizing:border-box}body{margin:0;font:15px/1.45 system-ui,sans-serif;color:var(--ink);background:var(--paper)}
        header{display:flex;gap:1rem;align-items:baseline;padding:.8rem 1.2rem;border-bottom:1px solid var(--line);flex-wrap:wrap}
        h1{font-size:1.2rem;margin:0}h2{font-size:1rem;margin:0 0 .5rem}header p{margin:0;flex:1}
        main{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(26rem,100%),1fr));gap:1rem;padding:1rem 1.2rem}
        section{border:1px solid var(--line);border-radius:8px;padding:.8rem 1rem;min-width:0}.wide{grid-column:1/-1}
        table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}caption{text-align:left;color:var(--soft)}
        th,td{text-align:right;padding:.15rem .6rem;border-bottom:1px solid var(--line);font-weight:400;white-space:nowrap}
        thead th{color:var(--soft)}th:first-child,td:first-child{text-align:left;padding-left:0}
        .key{color:var(--soft);margin:.3rem 0}.cards{display:flex;gap:1.6rem;flex-wrap:wrap}.cards b{display:block;font-size:1.5rem}
        .cards span,.none{color:var(--soft)}svg{display:block;width:100%;height:auto}svg text{fill:var(--soft);font-size:12px}
        .raw,.sink{color:var(--b)}.coded{color:var(--a)}.window{color:var(--c)}.free{color:var(--free)}.grid{color:var(--line)}
        svg .raw,svg .sink,svg .coded,svg .window,svg .free{fill:currentColor}svg path{fill:none;stroke:currentColor;stroke-width:1.8}
        .bad{color:var(--bad);font-weight:600}.scroll{overflow-x:auto}button{font:inherit}:focus-visible{outline:2px solid var(--a)}
        """

    private static let script = #"""
        "use strict";
        const $ = id => document.getElementById(id), history = [], KEEP = 150, PERIOD = 2000;
        let paused = false, failed = 0;
        const text = v => String(v).replace(/[&<>"']/g, c => "&#" + c.charCodeAt(0) + ";");
        const bytes = n => { const u = ["B","KiB","MiB","GiB","TiB"]; let i = 0;
          while (n >= 1024 && i < 4) { n /= 1024; i++; } return (i ? n.toFixed(n < 10 ? 2 : 1) : n) + " " + u[i]; };
        const count = n => Number(n).toLocaleString("en");
        const us = n => n >= 1e6 ? (n / 1e6).toFixed(2) + " s" : n >= 1e3 ? (n / 1e3).toFixed(1) + " ms" : n.toFixed(n < 10 ? 2 : 0) + " µs";
        const share = x => (100 * x).toFixed(1) + " %";
        const table = (caption, head, rows, empty) => rows.length
          ? `<caption>${caption}</caption><thead><tr>${head.map(h => `<th scope="col">${h}</th>`).join("")}</tr></thead><tbody>`
            + rows.map(r => `<tr>${r.map((c, i) => i ? `<td>${c}</td>` : `<th scope="row">${c}</th>`).join("")}</tr>`).join("")
            + "</tbody>"
          : `<caption class="none">${empty}</caption>`;

        function tiers(s) {
          const ram = s.tiers.ram, disk = s.tiers.disk;
          const inRam = s.pages.raw + s.pages.coded;
          const bar = (y, name, parts, used, budget) => {
            if (!budget) return `<text x="0" y="${y + 17}">${name}: off</text>`;
            let x = 60, out = `<text x="0" y="${y + 17}">${name}</text>`;
            for (const [cls, n] of parts) { const w = 420 * Math.min(1, n / budget);
              out += `<rect class="${cls}" x="${x}" y="${y}" width="${w}" height="24"/>`; x += w; }
            return out + `<rect class="free" x="${x}" y="${y}" width="${Math.max(0, 480 - x)}" height="24"/>`
              + `<text x="486" y="${y + 17}">${share(used / budget)}</text>`; };
          const raw = inRam ? ram.used * s.pages.raw / inRam : 0;
          const label = `RAM ${bytes(ram.used)} of ${bytes(ram.budget)}, ${count(s.pages.raw)} raw and ${count(s.pages.coded)} coded pages; `
            + (disk.budget ? `disk ${bytes(disk.used)} of ${bytes(disk.budget)}, ${count(disk.pages)} pages` : "no disk");
          $("tiers").innerHTML = `<svg viewBox="0 0 540 66" role="img" aria-label="${text(label)}">`
            + bar(2, "RAM", [["raw", raw], ["coded", ram.used - raw]], ram.used, ram.budget)
            + bar(38, "disk", [["window", disk.used]], disk.used, disk.budget) + "</svg>";
          $("tiers-key").innerHTML = `<b class="raw">■</b> raw <b class="coded">■</b> coded, by number of pages · ${text(label)}`;
        }
        function cards(s) {
          $("cards").innerHTML = [["total ratio", s.ratio ? s.ratio.toFixed(1) + "×" : "–"], ["kept", bytes(s.bytes.stored)],
            ["taken in", bytes(s.bytes.raw_in)], ["given back", bytes(s.bytes.returned)],
            ["waiting to be coded", count(s.queues.encode)]].map(([k, v]) => `<div><b>${v}</b><span>${k}</span></div>`).join("");
        }
        function lines(id, label, series, format, top) {
          const w = 520, h = 120, x = i => 50 + (w - 60) * i / (KEEP - 1);
          const values = series.flatMap(([, f]) => history.map(f)).filter(v => v !== null);
          if (!values.length) { $(id).innerHTML = `<p class="none">nothing yet</p>`; return; }
          const most = top ?? Math.max(...values, 1e-9);
          let out = `<text x="0" y="14">${format(most)}</text><text x="0" y="${h}">0</text>
            <path class="grid" d="M50 10H${w - 10}M50 ${h - 4}H${w - 10}"/>`;
          const first = KEEP - history.length;
          for (const [cls, f] of series) {
            let d = "", pen = "M";
            history.forEach((p, i) => { const v = f(p); if (v === null) { pen = "M"; return; }
              d += `${pen}${x(first + i).toFixed(1)} ${(h - 4 - (h - 14) * Math.min(1, v / most)).toFixed(1)}`; pen = "L"; });
            out += `<path class="${cls}" d="${d}"/>`;
          }
          $(id).innerHTML = `<svg viewBox="0 0 ${w} ${h + 4}" role="img" aria-label="${text(label)}">${out}</svg><p class="key">${text(label)}</p>`;
        }
        function sessions(s) {
          const drawn = t => { if (!t.tokens) return "–"; const all = Math.max(t.tokens, 1), sink = Math.min(t.sink, all), win = Math.min(t.window, all - sink);
            const px = n => 140 * n / all;
            return `<svg viewBox="0 0 140 12" style="width:140px" role="img" aria-label="${sink} sinks, ${all - sink - win} between, ${win} in the window">`
              + `<rect class="sink" width="${px(sink)}" height="12"/><rect class="coded" x="${px(sink)}" width="${px(all - sink - win)}" height="12"/>`
              + `<rect class="window" x="${px(all - win)}" width="${px(win)}" height="12"/></svg>`; };
          const rows = s.sessions.slice(0, 200).map(t => [text(t.id + (t.name ? " " + t.name : "")), text(t.mode),
            t.mode === "transform" || t.mode === "kvtc" ? text(t.quality_kind) + " " + +t.quality.toFixed(4) : "exact",
            count(t.tokens), drawn(t), count(t.pages), count(t.raw_pages),
            t.drift === null ? "–" : `<span class="${t.drifting ? "bad" : ""}">${t.drift.toFixed(2)}×${t.drifting ? " drifts: calibrate anew" : ""}</span>`,
            t.idle_s.toFixed(0) + " s"]);
          $("sessions").innerHTML = table(`${count(s.sessions.length)} open${s.sessions.length > 200 ? ", 200 shown" : ""}`,
            ["session", "mode", "quality", "tokens", "sinks and window", "pages", "of them raw", "distortion over expected", "idle"], rows, "none is open");
          $("profiles").innerHTML = table("in memory", ["profile", "model", "memory", "kept"],
            s.profiles.map(p => [text(p.id.slice(0, 12)), text(p.model), bytes(p.bytes), p.stored ? "yes" : "no"]), "none is loaded");
        }
        function costs(s) {
          const cell = c => c.us_per_token === null ? "–" : us(c.us_per_token) + ` (${count(c.pulls)} pulls)`;
          $("costs-section").hidden = !s.restore_costs.length;
          $("costs").innerHTML = table("bringing a token back: medians of the latest pulls", ["profile", "a token's bytes", "raw in RAM", "coded in RAM", "on disk", "with other machines"],
            s.restore_costs.map(r => [r.profile ? text(r.profile.slice(0, 12)) : "exact", bytes(r.token_bytes), cell(r.raw), cell(r.coded), cell(r.disk), r.shared ? cell(r.shared) : "–"]), "");
        }
        function shared(s) {
          const x = s.shared, sum = list => list.reduce((n, c) => n + c.count, 0);
          $("shared-section").hidden = !x;
          if (!x) return;
          $("shared").innerHTML = table("pages", ["", "number", "bytes"], [
            ["looked for", count(x.asked + x.known_absent), ""], ["of them found", count(x.hits), ""],
            ["brought here", count(x.fetched_pages), bytes(x.fetched_bytes)], ["written", count(x.written_pages), bytes(x.written_bytes)],
            ["waiting to be written", count(x.waiting), ""], ["not written", count(sum(x.held_back)), ""],
            ["answers that were none", count(sum(x.faults)), text(x.faults.filter(f => f.count).map(f => f.count + " " + f.reason).join(", "))]], "");
          $("servers").innerHTML = table(x.paused_for ? `servers: nothing is written for now (${text(x.paused_for)})` : "servers",
            ["server", "state", "answers in (p99)", "in", "out"], x.servers.map(v => [text(v.address),
              v.breaker === "closed" ? "answers" : `<span class="bad">left alone: ${text(v.fault || "failed")}</span>`,
              us(v.p99), bytes(v.bytes_in), bytes(v.bytes_out)]), "none is known yet");
        }
        function faults(s) {
          const c = s.counters;
          const rows = [["damaged pages, never given", c.corrupt], ["pages lost", c.lost], ["pages let go for want of room", c.dropped],
            ["faults of daemon and disk", c.errors], ["drift alarms", c.drift_alarms],
            ...s.refused.by_code.map(r => ["refused: " + text(r.code), r.count])].map(([k, v]) => [k, v ? `<span class="bad">${count(v)}</span>` : "0"]);
          $("faults").innerHTML = table("", ["", "count"], rows, "");
        }
        function show(s, was) {
          const asked = d => d.counters.hits + d.counters.misses;
          const fresh = was && was.instance === s.instance;
          const n = fresh ? asked(s) - asked(was) : 0;
          history.push({hit: n > 0 ? (s.counters.hits - was.counters.hits) / n : history.at(-1)?.hit ?? null,
            p50: s.latency_us.pull.count ? s.latency_us.pull.p50 : null, p99: s.latency_us.pull.count ? s.latency_us.pull.p99 : null});
          if (history.length > KEEP) history.shift();
          const all = asked(s), minutes = KEEP * PERIOD / 60000;
          $("state").innerHTML = `<span class="${s.state === "ready" ? "" : "bad"}">${text(s.state)}${s.state_reason ? ": " + text(s.state_reason) : ""}</span>`
            + ` · ${text(s.version)} · up ${(s.uptime_s / 3600).toFixed(1)} h`;
          tiers(s); cards(s);
          lines("hits", `share found, each 2 s of the last ${minutes} minutes; since the start ${all ? share(s.counters.hits / all) : "nothing asked for"}`,
            [["coded", p => p.hit]], share, 1);
          lines("pulls", `pull: median (blue) and 99th percentile (orange), since the start`, [["coded", p => p.p50], ["raw", p => p.p99]], us);
          const l = s.latency_us;
          $("latency").innerHTML = table("", ["operation", "median", "90 %", "99 %", "count"], ["push", "pull", "encode", "decode"].map(k =>
            [k, us(l[k].p50), us(l[k].p90), us(l[k].p99), count(l[k].count)]), "");
          costs(s); shared(s); sessions(s); faults(s);
        }
        let last = null;
        async function step() {
          if (!paused) try {
            const reply = await fetch("status.json", {cache: "no-store"});
            if (!reply.ok) throw new Error(await reply.text());
            const s = await reply.json(); show(s, last); last = s; failed = 0;
          } catch (e) { failed++; $("state").innerHTML = `<span class="bad">no answer${failed > 1 ? ` ${failed} times` : ""}: ${text(e.message)}</span>`; }
          setTimeout(step, PERIOD);
        }
        $("pause").onclick = e => { paused = !paused; e.target.setAttribute("aria-pressed", paused); e.target.textContent = paused ? "Resume" : "Pause"; };
        step();
        """#
}

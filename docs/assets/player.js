/* Steps through a recorded interleaving: source, lanes, shared state, locks, locals.

   stepThrough(element, trace) mounts a player into an element and returns { go, length }.
   Each figure of a page that holds a trace gets one. It asks for nothing from the network, moves
   nothing by itself, and never scrolls the page. */
;(() => {
  "use strict"
  const TOKEN =
    /(#.*)|([rbf]*(?:"""[^]*?(?:"""|$)|'''[^]*?(?:'''|$)|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'))|\b((?:def|class) )(\w+)|\b(and|as|assert|async|await|break|class|continue|def|del|elif|else|except|finally|for|from|global|if|import|in|is|lambda|nonlocal|not|or|pass|raise|return|try|while|with|yield|None|True|False)\b|\b(\d[\w.]*)/g

  /** An element; an attribute that is undefined or false is left out. */
  function make(tag, attributes = {}, ...children) {
    const node = document.createElement(tag)
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value)
      else if (value !== undefined && value !== false) node.setAttribute(name, value)
    }
    node.append(...children.flat().filter((child) => child !== "" && child !== undefined))
    return node
  }

  const span = (kind, ...children) => make("span", { class: `player-${kind}` }, ...children)
  const code = (text) => make("code", {}, text)
  const plural = (count, what) => `${count} ${what}${count === 1 ? "" : "s"}`

  function stepThrough(element, trace) {
    let run = trace // or the same with the fix
    let lanes = Object.keys(run.lanes)
    let at = 0
    const role = (lane) => run.lanes[lane] ?? lane
    const number = (lane) => lanes.indexOf(lane) + 1
    const chip = (lane) =>
      make("b", { class: `player-chip player-${number(lane)}`, "aria-hidden": "true" }, number(lane))
    const who = (lane) => [chip(lane), ` ${role(lane)}`]
    const end = () => run.steps.length // the place of the outcome, after the last step

    // What a place in the trace shows.

    function told(place) {
      if (place === end()) return outcome()
      const step = run.steps[place]
      const where = step.line ? `, line ${step.line}` : ""
      const folded = step.skipped ? `, after ${plural(step.skipped, "folded line")}` : ""
      const does = step.dies ? "The process is killed here." : code(step.call || step.code || lines[`${step.file}:${step.line}`]?.text || step.fn)
      return [
        make("p", { class: "player-where" }, who(step.t), span("dim", where + folded)),
        make("p", { class: "player-said" }, step.say ?? does),
        step.say && (step.call || step.dies) ? make("p", { class: step.dies && "player-torn" }, does) : "",
        step.result ? make("p", {}, "→ ", code(step.result)) : "",
        step.torn
          ? make("p", { class: "player-torn" }, "Interrupted in the middle, after ", code(step.torn), ".")
          : "",
      ]
    }

    function outcome() {
      const { kind, text } = run.outcome
      const held = kind === "holds"
      const head = held ? "With the fix, the check holds" : kind === "deadlock" ? "Deadlock" : "The check fails"
      const circle = kind === "deadlock" && run.circle?.length ? run.circle : null
      const all = trace.kind === "crash" ? "crash points" : "schedules of the search"
      const also = held && trace.holds ? ` So it does in each of the ${trace.holds} ${all}.` : ""
      return [
        make("p", { class: `player-where ${held ? "player-good" : "player-bad"}` }, `${held ? "✓" : "✗"} ${head}`),
        circle?.every(([, , holder]) => holder) ? picture(circle) : "",
        make("p", { class: "player-said" }, circle ? circle.map(waiting).join(" ") : text + also),
      ]
    }

    function waiting([lane, what, holder]) {
      const rest = holder === null ? "which nobody can give" : `which ${holder === lane ? "it" : role(holder)} holds`
      return `${sentence(role(lane))} waits for ${what}, ${rest}${holder === lane ? " itself" : ""}.`
    }

    /** The circle of a deadlock: threads and what they wait for in turn, around an ellipse. */
    function picture(circle) {
      const stops = circle.flatMap(([lane, what, holder], index) => [
        { lane, text: String(number(lane)) },
        { text: what, open: holder !== circle[(index + 1) % circle.length][0] },
      ])
      const place = (index, size = 1) => {
        const turn = (2 * Math.PI * index) / stops.length + Math.PI
        return [105 * size * Math.cos(turn), 34 * size * Math.sin(turn)]
      }
      const tip = `player-tip-${++pictures}` // of this picture alone: that of a hidden one is not drawn
      const arrow = (index) =>
        `<path d="M${place(index + 0.24)} Q${place(index + 0.5, 1.1)} ${place(index + 0.76)}" marker-end="url(#${tip})"/>`
      const arrows = stops.map((stop, index) => (stop.open ? "" : arrow(index)))
      const nodes = stops.map(({ lane, text }, index) => {
        const [x, y] = place(index)
        const half = lane ? 11 : 6 + 3.2 * text.length
        const shape = `<rect x="${x - half}" y="${y - 11}" width="${2 * half}" height="22" rx="${lane ? 11 : 4}"/>`
        const kind = lane ? ` class="player-${number(lane)}"` : ""
        return `<g${kind}>${shape}<text x="${x}" y="${y + 4}">${escaped(text)}</text></g>`
      })
      const box = make("div", { class: "player-circle" })
      box.innerHTML = `<svg viewBox="-160 -50 320 100" aria-hidden="true"><defs><marker id="${tip}" viewBox="0 0 8 8"
        refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto"><path d="M0 0 8 4 0 8Z"/></marker></defs>
        ${arrows.join("")}${nodes.join("")}</svg>`
      return box
    }

    /** What a lane waits for; in the end of a deadlock, each of the circle waits. */
    function waitsFor(lane, place) {
      const blocked = run.steps[Math.min(place, end() - 1)].blocked?.[lane]
      return blocked ?? (place === end() ? run.circle?.find(([waiter]) => waiter === lane)?.[1] : undefined)
    }

    /** How a lane stands when the step at `place` has been executed. */
    function standing(lane, place) {
      const past = run.steps.slice(0, place + 1).filter((step) => step.t === lane)
      const [before, last] = [past.at(-2), past.at(-1)]
      const runs = last !== undefined && last === run.steps[place]
      const later = run.steps.slice(place + 1).some((step) => step.t === lane)
      const waits = waitsFor(lane, place)
      const deadlock = run.outcome.kind === "deadlock"
      let status
      if (waits) status = deadlock && place === end() ? `blocked forever on ${waits}` : `waits for ${waits}`
      else if (!last) status = "has not begun"
      else if (runs) status = `${last.torn ? "interrupted in" : "ran"} line ${last.line}`
      else if (later) status = `stands ${last.torn ? "in the middle of" : "after"} line ${last.line}`
      else status = last.dies ? "is dead" : deadlock ? "makes no further step" : "has ended"
      return { last, before, status, here: last && (later || waits || runs) }
    }

    function panels(place) {
      const index = Math.min(place, end() - 1)
      const step = run.steps[index]
      const before = place === end() ? step : run.steps[index - 1]
      const waiters = (lock) => lanes.filter((lane) => waitsFor(lane, place) === lock)
      const locks = Object.entries(step.locks ?? {}).map(([lock, holder]) =>
        row(
          lock,
          [
            ...(holder === null ? ["free"] : ["held by ", ...who(holder)]),
            ...waiters(lock).flatMap((lane) => ["; ", ...who(lane), " waits"]),
          ],
          before?.locks && before.locks[lock] !== holder,
        ),
      )
      const shared = values(step.shared, before?.shared)
      return [
        shared.length || locks.length ? table("Shared", [...shared, ...locks]) : "",
        ...lanes.map((lane) => {
          const { last, before: earlier, status, here } = standing(lane, place)
          const fresh = place === index && last === step
          const known = fresh && earlier?.fn === last.fn ? earlier.vars : last?.vars
          return table([...who(lane), span("dim", ` ${status}`)], here ? values(last.vars, known) : [])
        }),
      ]
    }

    const row = (name, content, changed) =>
      make("tr", { class: changed ? "player-new" : false }, make("th", { scope: "row" }, name), make("td", {}, content))

    /** A row for each name; one whose value is another one than before is marked. */
    function values(now = {}, before) {
      return Object.entries(now).map(([name, value]) => {
        const changed = before !== undefined && before[name] !== value
        const was = changed && before[name]?.length < 25 ? span("dim", ` was ${before[name]}`) : ""
        return row(name, [code(value), was], changed)
      })
    }

    const table = (caption, rows) =>
      make("table", { class: "player-values" }, make("caption", {}, caption), make("tbody", {}, rows))

    // The source, drawn once for each run.

    function drawSource() {
      lines = {}
      const content = Object.entries(run.source).flatMap(([file, segments]) => [
        make("div", { class: "player-file" }, file),
        ...segments.flatMap((segment, index) => [
          index ? make("div", { class: "player-gap" }, "⋮") : "",
          ...segmentLines(file, segment),
        ]),
      ])
      source.replaceChildren(make("div", {}, content))
    }

    /** The lines of a function; those that the fault took out stand, struck, where they were. */
    function segmentLines(file, { from, lines: texts, changed = [], removed = [] }) {
      texts = texts.map((text) => trace.texts?.[text] ?? text) // a page's trace has each line once
      const indents = texts.map((text) => text.search(/\S/)) // -1 where a line is blank
      const common = Math.min(...indents.filter((indent) => indent >= 0))
      const tokens = highlighted(texts.map((text) => text.trimStart()).join("\n"))
      const draw = (number, indent, text, label) => {
        const marks = lanes.map(() => make("i"))
        const content = make("code", {}, " ".repeat(Math.max(1, indent - common + 1)), text)
        const mark = label ? span("changed", label) : ""
        const kind = `player-line${label ? " player-edited" : ""}`
        return { marks, node: make("div", { class: kind }, span("number", number), marks, content, mark) }
      }
      return tokens.flatMap((tokens, index) => {
        const line = from + index
        const gone = removed.filter(([place]) => place === line).map(([, text]) => text)
        const label = changed.includes(line) && "changed"
        const here = draw(line, indents[index], make("span", {}, tokens), label)
        lines[`${file}:${line}`] = { ...here, text: texts[index].trim() }
        const struck = gone.map((text) => draw("", text.search(/\S/), make("del", {}, text.trim()), "removed").node)
        return [...struck, here.node]
      })
    }

    function markSource() {
      const current = run.steps[Math.min(at, end() - 1)]
      for (const { node, marks } of Object.values(lines)) {
        node.classList.remove("player-now", "player-half")
        for (const mark of marks) mark.replaceChildren()
      }
      for (const lane of lanes) {
        const { last, here } = standing(lane, at)
        const place = last && here && lines[`${last.file}:${last.line}`]
        if (place) place.marks[number(lane) - 1].replaceChildren(chip(lane))
      }
      const place = lines[`${current.file}:${current.line}`]
      if (!place) return
      if (at < end()) place.node.classList.add("player-now")
      if (at < end() && current.torn) place.node.classList.add("player-half")
      const room = source.clientHeight
      const top = place.node.offsetTop - source.scrollTop
      if (top < 40 || top > room - 50) source.scrollTop = place.node.offsetTop - room / 2
    }

    // The lanes: a row for each, a column for each step.

    function drawLanes() {
      strip.style.setProperty("--steps", end() + 1)
      const rows = lanes.map((lane) => [
        make("span", { class: "player-role" }, who(lane)),
        make("span", { class: "player-cells" }, run.steps.map((step, index) => cell(lane, step, index)), cell(lane, null, end())),
      ])
      strip.replaceChildren(...rows.flat(), counter, slider)
      slider.max = end()
    }

    function cell(lane, step, index) {
      const { last, here } = standing(lane, index)
      let kind = last && here ? "idle" : "none"
      if (step === null) kind = run.outcome.kind === "holds" ? "held" : "lost"
      else if (step.t === lane) kind = step.torn || step.dies ? "on player-cut" : "on"
      else if (step.blocked?.[lane]) kind = "waits"
      return make("span", { class: `player-${number(lane)} player-${kind}`, "data-step": index })
    }

    // The frame.

    // On a phone a label's first word is left out.
    const button = (label, [first, ...rest], act) =>
      make("button", { type: "button", "aria-label": label, onclick: act }, span("wide", first), ...rest)
    const previous = button("Previous", ["", "◀", span("wide", " Previous")], () => go(at - 1))
    const next = button("Next", ["", "Next ▶"], () => go(at + 1))
    const toSwitch = button("Next switch", ["Next ", "switch ⇄"], () => go(nextSwitch()))
    const toggle = button("The same with the fix", ["The same ", "with the fix"], swap)
    const slider = make("input", { type: "range", min: 0, "aria-label": "Step", oninput: () => go(Number(slider.value)) })
    const counter = span("counter")
    const strip = make("div", { class: "player-lanes", onclick: ({ target }) => go(target.closest("[data-step]")?.dataset.step ?? at) })
    const say = make("div", { class: "player-say", "aria-live": "polite" })
    const about = make("p", { class: "player-about" })
    const box = (kind, label) =>
      make("div", { class: `player-${kind}`, tabindex: 0, role: "region", "aria-label": label })
    const source = box("source", "Source, and where each lane stands")
    const state = box("state", "State after this step")
    let lines = {}
    const title = element.closest("figure.sequence") ? "" : make("p", { class: "player-title" }, trace.title ?? "")
    const bar = make("div", { class: "player-bar" }, previous, next, toSwitch, trace.fix ? toggle : "")
    const root = make(
      "div",
      { class: "player", role: "group", tabindex: -1, "aria-label": `Step through: ${trace.title ?? "the interleaving"}`, onkeydown: press },
      ...[title, about, bar, strip, say, make("div", { class: "player-main" }, source, state)],
    )

    function nextSwitch() {
      const found = run.steps.findIndex((step, index) => index > at && step.t !== run.steps[index - 1].t)
      return found < 0 ? end() : found
    }

    function swap() {
      const wasAtEnd = at === end()
      run = run === trace ? { ...trace, circle: null, ...trace.fix } : trace
      lanes = Object.keys(run.lanes)
      draw()
      go(wasAtEnd ? end() : at)
      reserve()
    }

    function press(event) {
      const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: end() }[event.key]
      const own = [slider, source, state].includes(event.target) // these have keys of their own
      if (to === undefined || own || event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return
      event.preventDefault()
      go(to)
    }

    function draw() {
      const fixed = run !== trace
      toggle.setAttribute("aria-pressed", fixed)
      about.replaceChildren(...(fixed ? [make("b", {}, "With the fix: "), run.say] : found()))
      drawSource()
      drawLanes()
    }

    function found() {
      const { schedule, by, bound } = trace.found ?? {}
      const most = bound === 0 ? "without any" : `with at most ${bound}`
      const places = {
        threads: `in schedule ${schedule} of the search by ${by}, ${most} preemption${bound > 1 ? "s" : ""}`,
        tasks: `in schedule ${schedule} of the search, ${most} step${bound > 1 ? "s" : ""} out of asyncio's order`,
        crash: `at crash point ${schedule} of ${bound}`,
      }
      const fault = trace.fault ? make("b", {}, `Fault: ${trace.fault}. `) : ""
      return [fault, schedule ? `Found ${places[trace.kind]}.` : ""].filter(Boolean)
    }

    function go(place) {
      at = Math.max(0, Math.min(end(), Number(place) || 0))
      say.replaceChildren(...told(at).filter(Boolean))
      state.replaceChildren(...panels(at).filter(Boolean))
      markSource()
      slider.value = at
      slider.setAttribute("aria-valuetext", `${at === end() ? "Outcome" : `Step ${at + 1}`} of ${end()}`)
      counter.textContent = at === end() ? "outcome" : `step ${at + 1} of ${end()}`
      for (const each of strip.querySelectorAll("[data-step]")) {
        each.classList.toggle("player-at", Number(each.dataset.step) === at)
        each.classList.toggle("player-later", Number(each.dataset.step) > at)
      }
      previous.setAttribute("aria-disabled", at === 0)
      for (const each of [next, toSwitch]) each.setAttribute("aria-disabled", at === end())
    }

    /** Keep as much room as the largest step takes, so that nothing below moves from step to step. */
    function reserve() {
      for (const [box, content] of [[say, told], [state, panels]]) {
        const probe = box.cloneNode()
        probe.removeAttribute("aria-live")
        probe.style = `visibility: hidden; position: absolute; min-height: 0; width: ${box.offsetWidth}px`
        box.after(probe)
        let most = 0
        for (let place = 0; place <= end(); place++) {
          probe.replaceChildren(...content(place).filter(Boolean))
          most = Math.max(most, probe.offsetHeight)
        }
        probe.remove()
        box.style.minHeight = `${most}px`
      }
      markSource()
    }

    element.replaceChildren(root)
    draw()
    go(0)
    let width = 0
    const resized = () => {
      if (root.offsetWidth !== width) reserve()
      width = root.offsetWidth
    }
    new ResizeObserver(() => requestAnimationFrame(resized)).observe(root)
    return {
      go,
      get length() {
        return end() + 1
      },
    }
  }

  let pictures = 0
  const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1)
  const escaped = (text) => text.replace(/[&<>"]/g, (sign) => `&#${sign.charCodeAt(0)};`)

  /** The nodes of each line of some Python. */
  function highlighted(text) {
    const lines = [[]]
    const add = (piece, kind) => {
      for (const [index, part] of piece.split("\n").entries()) {
        if (index) lines.push([])
        if (part) lines.at(-1).push(kind ? span(kind, part) : part)
      }
    }
    let last = 0
    for (const match of text.matchAll(TOKEN)) {
      const [all, comment, string, defining, name, keyword] = match
      add(text.slice(last, match.index))
      if (defining) {
        add(defining, "keyword")
        add(name, "function")
      } else add(all, comment ? "comment" : string ? "string" : keyword ? "keyword" : "digits")
      last = match.index + all.length
    }
    add(text.slice(last))
    return lines
  }

  /** Give each figure of the page its player; the picture and the table are folded away. */
  function mount() {
    for (const figure of document.querySelectorAll("figure[data-trace]:not(.stepped)")) {
      const place = make("div")
      const unfold = make("button", { type: "button", class: "player-unfold", "aria-expanded": "false" }, "Picture and table")
      unfold.addEventListener("click", () => {
        unfold.setAttribute("aria-expanded", figure.classList.toggle("unfolded"))
      })
      figure.querySelector("figcaption").after(place, unfold)
      figure.classList.add("stepped")
      stepThrough(place, JSON.parse(figure.dataset.trace))
    }
  }

  globalThis.stepThrough = stepThrough
  mount()
  globalThis.document$?.subscribe(mount) // Material's instant navigation
})()

/* A lab: a file and a check to edit, faults to make by a click, and a search of all interleavings. */
import { editor } from "./editor.mjs"
import { difference, pack, patched, unpack } from "./link.mjs"
import { Python } from "./python.mjs"
import { make, styled } from "./page.mjs"

const LIMIT = 200_000 // schedules, after which a search gives up
const THREADS = "Suspending" in WebAssembly // JSPI: stacks can be suspended, so threads modelled
const NO_THREADS =
  "This browser cannot suspend a WebAssembly stack (JSPI), which modelling threads needs: " +
  "Chrome, Edge and Firefox from 153 can. The recorded interleaving above works everywhere."
const last = (name) => name.split("/").at(-1)
const count = (number, what) => `${number.toLocaleString("en")} ${what}${number === 1 ? "" : "s"}`

/** Put the lab in the place of its button; `start` has Python fetched meanwhile. */
export async function mount(root, start) {
  const answer = await fetch(new URL(`labs/${root.dataset.lab}.json`, import.meta.url))
  if (!answer.ok) throw new Error(`${answer.status} for ${root.dataset.lab}.json`)
  await styled()
  const lab = new Lab(root, await answer.json())
  if (start) lab.python.start()
  await lab.take(location.hash)
}

class Lab {
  constructor(root, about) {
    this.root = root
    this.about = about
    this.python = new Python()
    this.#build()
    this.texts = { ...about.files }
    this.choose(about.scenes[0])
    this.open(Object.keys(about.files)[0])
    const gone = () => {
      if (root.isConnected) return
      this.python.end("")
      watch.disconnect()
    }
    const watch = new MutationObserver(gone) // instant navigation puts another page in its place
    watch.observe(document.body, { childList: true, subtree: true })
  }

  #build() {
    const { about, root } = this
    const names = Object.keys(about.files)
    this.files = make("select", { ariaLabel: "The file", onchange: () => this.open(this.files.value) },
      names.map((name) => make("option", { value: name, textContent: last(name) })))
    const title = names.length > 1 ? this.files : make("code", { textContent: last(names[0]) })
    const fault = (scene) => make("button", { type: "button", textContent: scene.fault, onclick: () => this.break(scene) })
    this.faults = make("div", { className: "lab-faults" }, [
      make("button", { type: "button", textContent: "As it is", onclick: () => this.restore() }),
      ...about.scenes.map(fault),
    ])
    const place = () => make("div", { className: "lab-editor" })
    const [left, right] = [place(), place()]
    const checks = [...new Set(about.scenes.map((scene) => scene.check))]
    const first = () => this.choose(about.scenes.find((scene) => scene.check === this.checks.value))
    this.checks = make("select", { ariaLabel: "The check", onchange: first },
      checks.map((file) => make("option", { value: file, textContent: file })))
    this.bound = make("input", { type: "number", min: 0, max: 5, required: true })
    this.boundName = make("span")
    this.by = make("select", {}, [
      make("option", { value: "line", textContent: "lines" }),
      make("option", { value: "opcode", textContent: "bytecode instructions" }),
    ])
    this.byLabel = make("label", {}, ["Switch threads between ", this.by])
    this.start = make("button", { type: "button", className: "md-button md-button--primary", textContent: "Search every interleaving", onclick: () => this.search() })
    this.stop = make("button", { type: "button", className: "md-button", textContent: "Stop", disabled: true, onclick: () => this.python.end("Stopped.") })
    this.share = make("button", { type: "button", textContent: "Copy a link to this edit", onclick: () => this.link() })
    this.status = make("p", { className: "lab-status", role: "status" })
    this.unable = make("p", { className: "lab-bad", textContent: NO_THREADS })
    this.result = make("div", { className: "lab-result" })
    this.told = make("p", { className: "lab-told" })
    root.replaceChildren(
      this.faults,
      make("div", { className: "lab-editors" }, [
        make("div", {}, [make("div", { className: "lab-name" }, [title]), left]),
        make("div", {}, [make("div", { className: "lab-name" }, ["The check ", this.checks]), right]),
      ]),
      make("div", { className: "lab-controls" }, [
        make("label", {}, [this.boundName, this.bound]),
        this.byLabel,
        this.start,
        this.stop,
        this.share,
      ]),
      this.unable,
      this.status,
      this.result,
      this.told,
    )
    const old = () => this.result.classList.add("lab-old")
    this.component = editor(left, "The file", () => {
      this.texts[this.file] = this.component.text
      old()
    })
    this.check = editor(right, "The check", old)
    this.#tell()
  }

  /** What runs here, and what is only modelled. */
  #tell() {
    const python = this.python.version
    const version = python ? `Python ${python.version} in your browser (Pyodide ${python.pyodide})` : "Python in your browser"
    const threads = "Threads are modelled: each is a stack that is suspended where another takes over."
    const tasks = "Tasks run on a simulated event loop."
    const model = this.about.scenes.every((scene) => scene.kind === "tasks") ? tasks : threads
    this.told.textContent = `${version}. ${model} Nothing is sent. In the editor, Escape and then Tab leads on.`
  }

  /** Take a scene's check, and what it is searched with. */
  choose(scene) {
    const tasks = scene.kind === "tasks"
    this.scene = scene
    this.checks.value = scene.check
    this.check.text = scene.checkText
    this.bound.value = scene.preemptions
    this.by.value = scene.by
    this.boundName.textContent = tasks ? "Delays at most " : "Preemptions at most "
    this.byLabel.hidden = tasks
    this.start.disabled = !tasks && !THREADS
    this.unable.hidden = !this.start.disabled
  }

  /** Show a file in the editor. */
  open(name) {
    this.file = this.files.value = name
    this.component.text = this.texts[name]
  }

  /** Take these texts for the files, and show the one that differs. */
  put(texts) {
    this.texts = { ...texts }
    const edited = Object.keys(texts).find((name) => texts[name] !== this.about.files[name])
    this.open(edited ?? this.file)
  }

  break(scene) {
    this.choose(scene)
    this.put(broken(this.about, scene))
  }

  restore() {
    this.choose(this.scene)
    this.put(this.about.files)
  }

  say(kind, ...texts) {
    this.result.className = "lab-result"
    this.result.replaceChildren(make("div", { className: `lab-${kind}` }, texts))
  }

  async search() {
    if (!this.bound.reportValidity()) return
    const { scene } = this
    const request = {
      files: this.texts,
      originals: this.about.files,
      check: this.check.text,
      by: this.by.value,
      bound: this.bound.valueAsNumber,
      limit: LIMIT,
      scene,
    }
    this.start.disabled = true
    this.stop.disabled = false
    this.result.replaceChildren()
    this.status.textContent = this.python.version ? "Searching …" : "Fetching Python (6 MB) …"
    let began
    try {
      const result = await this.python.ask("search", request, (news) => {
        if (news.kind === "ready") this.#tell()
        if (news.kind === "begun") began = performance.now()
        if (news.kind === "progress") this.status.textContent = pace(news.schedules, performance.now() - began)
        else this.status.textContent = news.kind === "recording" ? "Found: writing it down …" : "Searching …"
      })
      this.status.textContent = "seconds" in result ? pace(result.schedules, 1000 * result.seconds) : ""
      this.root.dataset.found = result.kind
      this.show(result, request)
    } catch (error) {
      this.status.textContent = ""
      this.root.dataset.found = "ended"
      if (error.message) this.say("bad", error.message)
    }
    this.#tell()
    this.start.disabled = false
    this.stop.disabled = true
  }

  /** Show a line of one of the texts. */
  go(file, line) {
    const name = Object.keys(this.texts).find((each) => last(each) === file)
    if (name) this.open(name)
    ;(name ? this.component : this.check).go(line)
  }

  show(result, { bound, by }) {
    const unit = this.scene.kind === "tasks" ? "delay" : "preemption"
    if (result.kind === "broken") {
      const line = result.line ? `, line ${result.line}` : ""
      this.say("bad", `${result.file}${line}: ${result.text}`)
      if (result.line) this.go(result.file, result.line)
    } else if (result.kind === "holds") {
      const where = this.scene.kind === "tasks" ? "" : `, by ${by}`
      if (result.exhausted)
        this.say("good", `Every interleaving with at most ${count(bound, unit)}${where} was run: none of the ${count(result.schedules, "schedule")} loses.`)
      else this.say("good", `None of the first ${count(result.schedules, "schedule")} loses, but there are more: the search has given up.`)
    } else {
      this.say("bad", `Schedule ${result.schedules.toLocaleString("en")} loses: ${result.trace.outcome.text}`)
      const place = make("div")
      this.result.append(place)
      if (globalThis.stepThrough) globalThis.stepThrough(place, result.trace)
      else place.append(make("ol", {}, result.trace.steps.map((step) => make("li", { textContent: `${step.t}: ${step.code}` }))))
    }
  }

  async link() {
    const { about, scene } = this
    const differences = (texts) =>
      Object.keys(texts).map((name) => difference(texts[name], this.texts[name]))
    const [plain, fault] = [about.files, broken(about, scene)].map(differences)
    const fewer = JSON.stringify(fault).length < JSON.stringify(plain).length
    const edit = {
      of: about.digest,
      scene: scene.name,
      fault: fewer,
      files: fewer ? fault : plain,
      check: difference(scene.checkText, this.check.text),
      by: this.by.value,
      bound: this.bound.value,
    }
    history.replaceState(history.state, "", `#lab=${about.name}.${await pack(edit)}`)
    try {
      await navigator.clipboard.writeText(location.href)
      this.status.textContent = "The link is copied, and stands in the address bar. It carries the edit itself."
    } catch {
      this.status.textContent = "The link stands in the address bar. It carries the edit itself."
    }
  }

  /** Make the edit that an address carries. */
  async take(hash) {
    const lead = `#lab=${this.about.name}.`
    if (!hash.startsWith(lead)) return
    try {
      const edit = await unpack(hash.slice(lead.length))
      const scene = this.about.scenes.find((each) => each.name === edit.scene)
      if (edit.of !== this.about.digest || !scene) {
        this.say("bad", "The link carries an edit of another version of this file, so it was not made.")
        return
      }
      this.choose(scene)
      const texts = Object.entries(edit.fault ? broken(this.about, scene) : this.about.files)
      this.put(Object.fromEntries(texts.map(([name, text], i) => [name, patched(text, edit.files[i])])))
      this.check.text = patched(scene.checkText, edit.check)
      this.by.value = edit.by
      this.bound.value = edit.bound
      this.say("good", "This is the edit that the link carries: read it, then search.")
      this.root.scrollIntoView()
    } catch {
      this.say("bad", "The link is damaged: it carries no edit that can be read.")
    }
  }
}

/** The files with a scene's fault. */
function broken(about, scene) {
  const texts = { ...about.files }
  for (const [name, old, now] of scene.edits) texts[name] = texts[name].replaceAll(old, () => now)
  return texts
}

const pace = (schedules, ms) => `${count(schedules, "schedule")}, ${Math.round((1000 * schedules) / Math.max(ms, 1)).toLocaleString("en")} a second`

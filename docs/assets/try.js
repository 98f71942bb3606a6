/* The buttons of the labs and of the blocks that run. What they need is loaded when they are pressed. */
;(() => {
  const base = new URL("lab/", document.currentScript.src)
  const served = location.protocol.startsWith("http")
  const load = (name) => import(new URL(name, base))
  const broken = (place) => (error) => {
    place.textContent = `This could not be loaded: ${error.message}`
  }

  /* FNV-1a of the text's bytes, as site_build/lab_blocks.py makes it. */
  const hash = (text) => {
    let value = 0x811c9dc5
    for (const byte of new TextEncoder().encode(text)) value = Math.imul(value ^ byte, 0x01000193)
    return (value >>> 0).toString(16).padStart(8, "0")
  }

  const button = (label, pressed) => {
    const made = Object.assign(document.createElement("button"), { type: "button", textContent: label })
    made.addEventListener("click", pressed)
    return made
  }

  const offerLab = (root) => {
    root.dataset.offered = ""
    const told = document.createElement("p")
    const open = (start) => {
      told.textContent = "Loading the editor …"
      load("lab.mjs")
        .then((lab) => lab.mount(root, start))
        .catch(broken(told))
    }
    told.append(
      "Edit this file, take out a lock, and have your browser search every interleaving. ",
      "That fetches 6 MB from this site; nothing is sent.",
    )
    const start = button("Try it", () => open(true))
    start.className = "md-button"
    root.replaceChildren(told, start)
    if (location.hash.startsWith(`#lab=${root.dataset.lab}.`)) open(false)
  }

  const offerRun = (block) => {
    block.dataset.offered = ""
    const code = block.querySelector("pre code")
    const place = Object.assign(document.createElement("div"), { className: "ran" })
    place.setAttribute("role", "status")
    const run = button("Run", () =>
      load("run.mjs")
        .then((lab) => lab.run(code.textContent, place, run))
        .catch(broken(place)),
    )
    run.className = "run"
    run.title = "Run this block in your browser"
    block.append(run)
    block.after(place)
  }

  const offer = async () => {
    document.querySelectorAll(".lab[data-lab]:not([data-offered])").forEach(offerLab)
    const blocks = [...document.querySelectorAll(".language-python.highlight:not([data-offered])")]
    if (blocks.length === 0) return
    const response = await fetch(new URL("blocks.json", base))
    const known = new Set(response.ok ? await response.json() : [])
    const threads = "Suspending" in WebAssembly
    for (const block of blocks) {
      const text = block.querySelector("pre code")?.textContent ?? ""
      if (known.has(hash(text)) && (threads || !text.includes("asyncio"))) offerRun(block)
    }
  }

  if (!served) return
  if (globalThis.document$) globalThis.document$.subscribe(offer)
  else offer()
  addEventListener("hashchange", () => {
    for (const root of document.querySelectorAll(".lab[data-lab]"))
      if (location.hash.startsWith(`#lab=${root.dataset.lab}.`)) offerLab(root)
  })
})()

/* Sort and filter the comparison's tables; each is complete without this. */
const ORDER = ["holds", "stated", "unpromised", "unread", "broken", "open", "none"]

function equip(box) {
  const table = box.querySelector("table.peers")
  if (box.dataset.equipped || table.classList.contains("short")) return
  box.dataset.equipped = "yes"
  const rows = [...table.tBodies[0].rows]
  const questions = [...table.tHead.rows[0].cells].slice(1).map((cell) => cell.textContent.trim())
  const tools = document.createElement("form")
  tools.className = "peers-tools"
  tools.addEventListener("submit", (event) => event.preventDefault())

  const words = field(tools, "Library", document.createElement("input"))
  words.type = "search"
  const keeps = field(tools, "That keeps", choice(["anything", ...questions]))
  const sort = field(tools, "Sorted by", choice(["our order", "name", ...questions]))
  const count = document.createElement("output")
  tools.append(count)

  function show() {
    const column = keeps.selectedIndex
    let shown = 0
    for (const row of rows) {
      const named = row.cells[0].textContent.toLowerCase().includes(words.value.toLowerCase())
      const kept = column === 0 || row.cells[column].classList.contains("holds")
      row.hidden = !(named && kept)
      if (!row.hidden) shown += 1
    }
    count.textContent = `${shown} of ${rows.length}`
    const by = sort.selectedIndex
    const sorted = [...rows]
    if (by === 1) sorted.sort((a, b) => name(a).localeCompare(name(b)))
    if (by > 1) sorted.sort((a, b) => rank(a, by - 1) - rank(b, by - 1))
    table.tBodies[0].append(...sorted)
  }
  for (const each of [words, keeps, sort]) each.addEventListener("input", show)
  box.before(tools)
  show()
}

const name = (row) => row.cells[0].textContent.toLowerCase()
const rank = (row, column) => ORDER.indexOf(row.cells[column].className)

function choice(texts) {
  const select = document.createElement("select")
  select.append(...texts.map((text) => new Option(text)))
  return select
}

function field(form, text, control) {
  const label = document.createElement("label")
  label.append(text, control)
  form.append(label)
  return control
}

/* The row that the address names: instant navigation makes no :target of it. */
function mark() {
  const row = document.getElementById(decodeURIComponent(location.hash.slice(1)))
  for (const other of document.querySelectorAll("tr.here"))
    if (other !== row) other.classList.remove("here")
  if (row?.matches("table.cells tr")) row.classList.add("here")
}

/* The page is replaced without a load: look again whenever it is. */
function equipAll() {
  for (const box of document.querySelectorAll(".peers-box")) equip(box)
  mark()
}
equipAll()
new MutationObserver(equipAll).observe(document.body, { childList: true, subtree: true })
document.addEventListener("click", () => setTimeout(mark))
window.addEventListener("hashchange", mark)

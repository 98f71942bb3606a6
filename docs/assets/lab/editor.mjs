/* An editor for Python, in the page's own colours. */
import {
  EditorState,
  EditorView,
  HighlightStyle,
  bracketMatching,
  defaultKeymap,
  drawSelection,
  highlightActiveLine,
  history,
  historyKeymap,
  indentUnit,
  indentWithTab,
  keymap,
  lineNumbers,
  pythonLanguage,
  syntaxHighlighting,
  tags,
} from "./vendor/editor.js"

const colour = (name) => ({ color: `var(--md-code-hl-${name}-color)` })
const highlighting = HighlightStyle.define([
  { tag: [tags.keyword, tags.operatorKeyword, tags.bool, tags.null], ...colour("keyword") },
  { tag: [tags.string, tags.special(tags.string)], ...colour("string") },
  { tag: tags.number, ...colour("number") },
  { tag: [tags.comment, tags.meta], ...colour("comment") },
  { tag: tags.definition(tags.variableName), ...colour("function") },
  { tag: [tags.function(tags.definition(tags.variableName)), tags.className], ...colour("function") },
  { tag: [tags.operator, tags.punctuation, tags.bracket], ...colour("punctuation") },
])

/** Make an editor in `parent`; `changed` hears of each edit. */
export function editor(parent, name, changed) {
  const state = EditorState.create({
    extensions: [
      lineNumbers(),
      history(),
      drawSelection(),
      bracketMatching(),
      highlightActiveLine(),
      keymap.of([...defaultKeymap, ...historyKeymap, indentWithTab]),
      indentUnit.of("    "),
      pythonLanguage,
      syntaxHighlighting(highlighting),
      EditorView.contentAttributes.of({ "aria-label": name, tabindex: "0" }),
      EditorView.updateListener.of((update) => update.docChanged && changed()),
    ],
  })
  const view = new EditorView({ parent, state })
  return {
    view,
    get text() {
      return view.state.doc.toString()
    },
    /** Replace the text; what changed comes into sight. */
    set text(now) {
      const before = this.text
      if (now === before) return
      let from = 0
      while (from < now.length && now[from] === before[from]) from++
      let rest = 0
      const most = Math.min(now.length, before.length) - from
      while (rest < most && now.at(-1 - rest) === before.at(-1 - rest)) rest++
      view.dispatch({
        changes: { from, to: before.length - rest, insert: now.slice(from, now.length - rest) },
        effects: before ? EditorView.scrollIntoView(from, { y: "center" }) : [],
      })
    },
    /** Show a line, from 1. */
    go(number) {
      const line = view.state.doc.line(Math.min(Math.max(number, 1), view.state.doc.lines))
      const effects = EditorView.scrollIntoView(line.from, { y: "center" })
      view.dispatch({ selection: { anchor: line.from }, effects })
    },
  }
}

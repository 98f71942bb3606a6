/* The editor as the lab needs it, bundled into one file: docs/assets/lab/vendor/editor.js. */
export { EditorView, drawSelection, highlightActiveLine, keymap, lineNumbers } from "@codemirror/view"
export { EditorState } from "@codemirror/state"
export { defaultKeymap, history, historyKeymap, indentWithTab } from "@codemirror/commands"
export { HighlightStyle, bracketMatching, indentUnit, syntaxHighlighting } from "@codemirror/language"
export { pythonLanguage } from "@codemirror/lang-python"
export { tags } from "@lezer/highlight"

// Copyright: the backstop.postgres contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

'use strict'
// A script as its statements.

/** What a semicolon does not end: comments, texts, names, bodies in dollar quotes. */
const WHOLE = [
  /--[^\n]*/y,
  /[eE]'(?:[^'\\]|\\[\s\S]|'')*'/y,
  /'(?:[^']|'')*'/y,
  /"(?:[^"]|"")*"/y,
  /\$([A-Za-z_]\w*)?\$[\s\S]*?\$\1\$/y,
  /[\w$]+/y,
]

function endOfComment(sql, start) {
  let depth = 0
  for (let i = start; i < sql.length; i++) {
    if (sql.startsWith('/*', i)) { depth++; i++ }
    else if (sql.startsWith('*/', i)) { depth--; i++; if (depth === 0) return i + 1 }
  }
  return sql.length
}

function endOfPart(sql, start) {
  if (sql.startsWith('/*', start)) return endOfComment(sql, start)
  for (const whole of WHOLE) {
    whole.lastIndex = start
    if (whole.test(sql)) return whole.lastIndex
  }
  return start + 1
}

function statements(sql) {
  const found = []
  let start = 0
  let empty = true
  for (let i = 0; i < sql.length; ) {
    const end = endOfPart(sql, i)
    const part = sql.slice(i, end)
    if (part !== ';' && !/^(\s|--|\/\*)/.test(part)) empty = false
    if (part === ';' || end >= sql.length) {
      if (!empty) found.push(sql.slice(start, end))
      start = end
      empty = true
    }
    i = end
  }
  return found
}

module.exports = { statements }

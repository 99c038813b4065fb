// Copyright: the backstop.postgres contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

'use strict'
// The report of a migration that failed (P3018), worded like the native engine's: the CLI prints it and the engine
// stores it in _prisma_migrations.logs.
const { KnownError } = require('./connection')

const BOLD = '\x1b[1m'
const RED = '\x1b[1;31m'
const PLAIN = '\x1b[0m'
const LINES_BEFORE = 5

/** The lines of the script up to the one where PostgreSQL found the error. */
function positionInScript(position, script) {
  const lines = script.split('\n')
  let end = 0
  const index = lines.findIndex((line) => (end += Buffer.byteLength(line) + 1) >= Number(position))
  if (index < 0) return ''
  const number = (n) => `${BOLD}${String(n).padStart(3)}${PLAIN}`
  const before = []
  if (index < LINES_BEFORE) before.push(number(0))
  for (let i = Math.max(0, index - LINES_BEFORE); i < index; i++) {
    before.push(number(i + 1) + (lines[i] === '' ? '' : ` ${lines[i]}`))
  }
  const failing = `${BOLD}${String(index + 1).padStart(3)}${RED} ${lines[index]}${PLAIN}`
  return `\n\nPosition:\n${[...before, failing].join('\n')}`
}

/** The error's fields as Rust's debug format prints them. */
function asRustPrintsIt(error) {
  const text = (value) => JSON.stringify(String(value))
  const some = (value) => (value === undefined || value === null || value === '' ? 'None' : `Some(${text(value)})`)
  const severity = { ERROR: 'Error', FATAL: 'Fatal', PANIC: 'Panic' }[error.severity] ?? 'Error'
  const fields = [
    `severity: ${text(error.severity)}`,
    `parsed_severity: Some(${severity})`,
    `code: SqlState(E${error.code})`,
    `message: ${text(error.message)}`,
    `detail: ${some(error.detail)}`,
    `hint: ${some(error.hint)}`,
    `position: ${error.position ? `Some(Original(${error.position}))` : 'None'}`,
    `where_: ${some(error.where)}`,
    `schema: ${some(error.schema)}`,
    `table: ${some(error.table)}`,
    `column: ${some(error.column)}`,
    `datatype: ${some(error.dataType)}`,
    `constraint: ${some(error.constraint)}`,
    `file: ${some(error.file)}`,
    `line: ${error.line ? `Some(${error.line})` : 'None'}`,
    `routine: ${some(error.routine)}`,
  ]
  return `DbError { ${fields.join(', ')} }`
}

function describe(error, script) {
  if (!error.severity) return error.message
  const parts = [`${error.severity}: ${error.message}`]
  if (error.detail) parts.push(`DETAIL: ${error.detail}`)
  if (error.hint) parts.push(`HINT: ${error.hint}`)
  const where = error.position ? positionInScript(error.position, script) : ''
  return `${parts.join('\n')}${where}\n\n${asRustPrintsIt(error)}`
}

function failedMigration(error, script, name) {
  const code = error.severity ? error.code : 'none'
  const description = describe(error, script)
  const message =
    'A migration failed to apply. New migrations cannot be applied before the error is recovered from. ' +
    'Read more about how to resolve migration issues in a production database: https://pris.ly/d/migrate-resolve\n\n' +
    `Migration name: ${name}\n\nDatabase error code: ${code}\n\nDatabase error:\n${description}\n`
  return new KnownError('P3018', message, { migration_name: name, database_error_code: code, database_error: description })
}

module.exports = { failedMigration }

// Copyright: the backstop.postgres contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

'use strict'
// Checks of what comes in: every field is named in a table of rules, everything wrong is told at once.
const { badRequest } = require('./errors')

const LONGEST_TEXT = 200
const MOMENT = /^\d{4}-\d{2}-\d{2}(T\d{2}:\d{2}(:\d{2}(\.\d{1,3})?)?(Z|[+-]\d{2}:\d{2}))?$/

/** Rules: each gives back the value to store, or throws an Error whose message completes "<field> ...". */
const text = (value) => {
  if (typeof value !== 'string' || !value.trim()) throw new Error('must be a text')
  if (value.length > LONGEST_TEXT) throw new Error(`must not be longer than ${LONGEST_TEXT} characters`)
  if (value.includes('\0')) throw new Error('must not hold a NUL character')
  return value
}
const email = (value) => {
  if (!/^[^\s@]+@[^\s@]+$/.test(text(value))) throw new Error('must be an e-mail address')
  return value
}
const amount = (value) => {
  if (typeof value !== 'number' || !Number.isFinite(value) || value < 0) throw new Error('must be a number, zero or more')
  return value
}
const moment = (value) => {
  const date = new Date(value)
  if (typeof value !== 'string' || !MOMENT.test(value) || Number.isNaN(date.getTime())) {
    throw new Error('must be a date, such as 2025-11-08T10:30:00Z')
  }
  return date
}
const optional = (rule) => Object.assign((value) => (value === null ? null : rule(value)), { optional: true })
const object = (rules) => (value) => {
  if (value === null || typeof value !== 'object' || Array.isArray(value)) throw new Error('must be an object')
  return check(value, rules)
}

/**
 * The fields of a body, checked.
 * @param partial true when missing fields are left as they are (an update)
 */
function check(body, rules, { partial = false } = {}) {
  const wrong = {}
  const values = {}
  for (const name of Object.keys(body)) {
    if (!Object.hasOwn(rules, name)) wrong[name] = `is unknown; known are ${Object.keys(rules).join(', ')}`
  }
  for (const [name, rule] of Object.entries(rules)) {
    if (!Object.hasOwn(body, name)) {
      if (!partial && !rule.optional) wrong[name] = 'is missing'
      continue
    }
    try {
      values[name] = rule(body[name])
    } catch (error) {
      wrong[name] = error.message
    }
  }
  const names = Object.keys(wrong)
  if (names.length) throw badRequest(names.map((name) => `${name} ${wrong[name]}`).join('; '), wrong)
  if (partial && !Object.keys(values).length) throw badRequest('Nothing is to be changed')
  return values
}

/** The query parameter `limit`: how many records a list shows. */
function limitOf(query, { most = 500, usual = 50 } = {}) {
  const given = query.get('limit') ?? String(usual)
  const limit = Number(given)
  if (!/^\d+$/.test(given) || limit < 1 || limit > most) throw badRequest(`limit must be a number from 1 to ${most}`)
  return limit
}

module.exports = { text, email, amount, moment, optional, object, check, limitOf }

// Copyright: the backstop.postgres contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

'use strict'
// Errors that become answers, and what Prisma's errors mean for the one who asked.

class HttpError extends Error {
  constructor(status, code, message, fields) {
    super(message)
    this.status = status
    this.code = code
    this.fields = fields
  }
}

const badRequest = (message, fields) => new HttpError(400, 'bad_request', message, fields)
const notFound = (what) => new HttpError(404, 'not_found', `There is no such ${what}`)
const unavailable = () => new HttpError(503, 'database_unavailable', 'The database cannot be reached, try again later')

/** Prisma's codes for a database that cannot be reached, or whose connection or pool failed. */
const UNAVAILABLE = new Set(['P1000', 'P1001', 'P1002', 'P1003', 'P1008', 'P1010', 'P1017', 'P2024', 'P2037'])
/** PostgreSQL's: connection ended by an administrator, cannot connect now, no such database, too many connections. */
const CONNECTION_ENDED = /\b(57P0[1-5]|08\d{3}|3D000|53300)\b/
const CONNECTION_WORDS = /connection (terminated|timeout|refused|ended)|ECONN|ETIMEDOUT|not accepting connections|ConnectionClosed|DatabaseNotReachable/i

function isUnavailable(error) {
  if (UNAVAILABLE.has(error.code)) return true
  const text = `${error.message} ${JSON.stringify(error.meta ?? {})} ${error.cause?.message ?? ''}`
  return CONNECTION_ENDED.test(text) || CONNECTION_WORDS.test(text)
}

/** The answer that an error of Prisma's deserves; other errors are given back as they are. */
function fromPrisma(error) {
  if (error.code === 'P2002') return new HttpError(409, 'conflict', 'There is one already')
  if (error.code === 'P2003') return badRequest('It refers to something that does not exist')
  if (error.code === 'P2025') return notFound('record')
  return isUnavailable(error) ? unavailable() : error
}

module.exports = { HttpError, badRequest, notFound, unavailable, fromPrisma }

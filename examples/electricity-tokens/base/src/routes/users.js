// Copyright: the backstop.postgres contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

'use strict'
// Users: those who buy and use tokens.
const { notFound } = require('../errors')
const { check, email, limitOf, optional, text } = require('../fields')

const RULES = { email, name: optional(text) }

module.exports = ({ database }) => [
  {
    method: 'GET',
    path: '/api/users',
    async handle({ query }) {
      const users = await database.user.findMany({ take: limitOf(query), orderBy: { id: 'asc' } })
      return { body: { users } }
    },
  },
  {
    method: 'POST',
    path: '/api/users',
    async handle({ body }) {
      return { status: 201, body: await database.user.create({ data: check(body, RULES) }) }
    },
  },
  {
    method: 'GET',
    path: '/api/users/:id',
    async handle({ parameters }) {
      const user = await database.user.findUnique({ where: { id: parameters.id } })
      if (!user) throw notFound('user')
      return { body: user }
    },
  },
  {
    method: 'DELETE',
    path: '/api/users/:id',
    async handle({ parameters }) {
      const { count } = await database.user.deleteMany({ where: { id: parameters.id } })
      if (!count) throw notFound('user')
      return { status: 204 }
    },
  },
]

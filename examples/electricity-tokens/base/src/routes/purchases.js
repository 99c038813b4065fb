// Copyright: the backstop.postgres contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

'use strict'
// Purchases of tokens, each with at most one contribution: what its user paid for and used.
const { badRequest, notFound } = require('../errors')
const { amount, check, limitOf, moment, object, optional, text } = require('../fields')

const CONTRIBUTION = { contributionAmount: amount, tokensConsumed: amount }
const RULES = {
  userId: text,
  totalTokens: amount,
  totalPayment: amount,
  purchaseDate: moment,
  contribution: optional(object(CONTRIBUTION)),
}
const include = { contribution: true }

async function create(database, body) {
  const { contribution, ...purchase } = check(body, RULES)
  try {
    return await database.tokenPurchase.create({
      data: { ...purchase, ...(contribution && { contribution: { create: contribution } }) },
      include,
    })
  } catch (error) {
    if (error.code === 'P2003') throw badRequest('userId names no user', { userId: 'names no user' })
    throw error
  }
}

module.exports = ({ database }) => [
  {
    method: 'GET',
    path: '/api/purchases',
    async handle({ query }) {
      const order = [{ purchaseDate: 'desc' }, { id: 'asc' }]
      const purchases = await database.tokenPurchase.findMany({ take: limitOf(query), orderBy: order, include })
      return { body: { purchases } }
    },
  },
  {
    method: 'POST',
    path: '/api/purchases',
    async handle({ body }) {
      return { status: 201, body: await create(database, body) }
    },
  },
  {
    method: 'GET',
    path: '/api/purchases/:id',
    async handle({ parameters }) {
      const purchase = await database.tokenPurchase.findUnique({ where: { id: parameters.id }, include })
      if (!purchase) throw notFound('purchase')
      return { body: purchase }
    },
  },
  {
    method: 'DELETE',
    path: '/api/purchases/:id',
    async handle({ parameters }) {
      const { count } = await database.tokenPurchase.deleteMany({ where: { id: parameters.id } })
      if (!count) throw notFound('purchase')
      return { status: 204 }
    },
  },
]

// Copyright: the backstop.postgres contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

'use strict'
// Receipts: what the utility printed for a purchase, at most one each (ET-100).
const { badRequest, HttpError, notFound } = require('../errors')
const { amount, check, limitOf, moment, optional, text } = require('../fields')

const CONTENT = {
  tokenNumber: optional(text),
  accountNumber: optional(text),
  kwhPurchased: amount,
  energyCostZWG: amount,
  debtZWG: amount,
  reaZWG: amount,
  vatZWG: amount,
  totalAmountZWG: amount,
  tenderedZWG: amount,
  transactionDateTime: moment,
}
const RULES = { purchaseId: text, ...CONTENT }

async function create(database, body) {
  try {
    return await database.receiptData.create({ data: check(body, RULES) })
  } catch (error) {
    if (error.code === 'P2003') throw badRequest('purchaseId names no purchase', { purchaseId: 'names no purchase' })
    if (error.code === 'P2002') throw new HttpError(409, 'conflict', 'This purchase has a receipt already')
    throw error
  }
}

async function update(database, id, body) {
  const data = check(body, CONTENT, { partial: true })
  try {
    return await database.receiptData.update({ where: { id }, data })
  } catch (error) {
    if (error.code === 'P2025') throw notFound('receipt')
    throw error
  }
}

module.exports = ({ database }) => [
  {
    method: 'GET',
    path: '/api/receipts',
    async handle({ query }) {
      const order = [{ transactionDateTime: 'desc' }, { id: 'asc' }]
      const receipts = await database.receiptData.findMany({ take: limitOf(query), orderBy: order })
      return { body: { receipts } }
    },
  },
  {
    method: 'POST',
    path: '/api/receipts',
    async handle({ body }) {
      return { status: 201, body: await create(database, body) }
    },
  },
  {
    method: 'GET',
    path: '/api/receipts/:id',
    async handle({ parameters }) {
      const receipt = await database.receiptData.findUnique({ where: { id: parameters.id } })
      if (!receipt) throw notFound('receipt')
      return { body: receipt }
    },
  },
  {
    method: 'PATCH',
    path: '/api/receipts/:id',
    async handle({ parameters, body }) {
      return { body: await update(database, parameters.id, body) }
    },
  },
  {
    method: 'DELETE',
    path: '/api/receipts/:id',
    async handle({ parameters }) {
      const { count } = await database.receiptData.deleteMany({ where: { id: parameters.id } })
      if (!count) throw notFound('receipt')
      return { status: 204 }
    },
  },
]

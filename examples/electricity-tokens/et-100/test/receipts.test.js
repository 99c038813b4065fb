// Copyright: the backstop.postgres contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

'use strict'
const assert = require('node:assert')
const { after, before, describe, test } = require('node:test')
const { startServer } = require('../scripts/server-for-tests')

const RECEIPT = {
  tokenNumber: '5123 4567 8901 2345 6789',
  accountNumber: '37 1234567 8',
  kwhPurchased: 100.5,
  energyCostZWG: 200,
  debtZWG: 0,
  reaZWG: 12,
  vatZWG: 38,
  totalAmountZWG: 250,
  tenderedZWG: 250,
  transactionDateTime: '2025-11-08T08:15:00Z',
}
// Within `describe`, because Node 18 runs other hooks when nothing runs any more, which the server prevents.
describe('receipts', () => {
  let server
  let user
  let purchase

  before(async () => {
    server = await startServer()
    user = (await server.ask('POST', '/api/users', { email: `receipts-${process.pid}@example.com` })).body
    const bought = { userId: user.id, totalTokens: 100.5, totalPayment: 250, purchaseDate: '2025-11-08' }
    purchase = (await server.ask('POST', '/api/purchases', bought)).body
  })
  after(async () => {
    await server.ask('DELETE', `/api/users/${user.id}`)
    assert.equal((await server.stop()).code, 0)
  })

  test('a receipt is created, read, listed, updated and deleted', async () => {
    const created = await server.ask('POST', '/api/receipts', { ...RECEIPT, purchaseId: purchase.id })
    assert.equal(created.status, 201)
    const address = `/api/receipts/${created.body.id}`
    assert.equal((await server.ask('GET', address)).body.tokenNumber, RECEIPT.tokenNumber)
    assert.equal((await server.ask('GET', '/api/receipts?limit=1')).body.receipts.length, 1)
    const updated = await server.ask('PATCH', address, { tenderedZWG: 300, accountNumber: null })
    assert.equal(updated.status, 200)
    assert.equal(updated.body.tenderedZWG, 300)
    assert.equal(updated.body.accountNumber, null)
    assert.equal((await server.ask('POST', '/api/receipts', { ...RECEIPT, purchaseId: purchase.id })).status, 409)
    assert.equal((await server.ask('DELETE', address)).status, 204)
    for (const [method, body] of [['GET'], ['DELETE'], ['PATCH', { tenderedZWG: 1 }]]) {
      assert.equal((await server.ask(method, address, body)).status, 404, method)
    }
  })

  test('bad input is answered by 400', async () => {
    const create = (body) => server.ask('POST', '/api/receipts', body)
    assert.equal((await create({ ...RECEIPT, purchaseId: 'none' })).status, 400)
    assert.equal((await create({ ...RECEIPT, purchaseId: purchase.id, vatZWG: '38' })).status, 400)
    assert.equal((await create({ purchaseId: purchase.id })).status, 400)
    assert.equal((await server.ask('PATCH', '/api/receipts/x', {})).status, 400)
    assert.equal((await server.ask('PATCH', '/api/receipts/x', { purchaseId: purchase.id })).status, 400)
  })

  test('a receipt goes with its purchase', async () => {
    const created = await server.ask('POST', '/api/receipts', { ...RECEIPT, purchaseId: purchase.id })
    assert.equal((await server.ask('DELETE', `/api/purchases/${purchase.id}`)).status, 204)
    assert.equal((await server.ask('GET', `/api/receipts/${created.body.id}`)).status, 404)
  })
})

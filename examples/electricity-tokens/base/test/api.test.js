// Copyright: the backstop.postgres contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

'use strict'
const assert = require('node:assert')
const { after, before, describe, test } = require('node:test')
const pg = require('pg')
const { startServer } = require('../scripts/server-for-tests')

const PURCHASE = { totalTokens: 100.5, totalPayment: 250, purchaseDate: '2025-10-30T08:15:00Z' }
// Within `describe`, because Node 18 runs other hooks when nothing runs any more, which the server prevents.
describe('the API', () => {
  let server
  let user

  before(async () => {
    server = await startServer()
    const answer = await server.ask('POST', '/api/users', { email: `api-${process.pid}@example.com`, name: 'Test' })
    assert.equal(answer.status, 201)
    user = answer.body
  })
  after(async () => {
    await server.ask('DELETE', `/api/users/${user.id}`)
    assert.deepEqual(await server.stop('SIGINT'), { code: 0, signal: null })
  })

  test('health asks the database', async () => {
    const { status, body } = await server.ask('GET', '/api/health')
    assert.equal(status, 200)
    assert.equal(body.status, 'ok')
  })

  test('health is 503 without a database, and the server runs on', async () => {
    const url = new URL(process.env.DATABASE_URL)
    url.port = '1'
    const lonely = await startServer({ DATABASE_URL: url.toString() })
    for (let i = 0; i < 2; i++) assert.equal((await lonely.ask('GET', '/api/health')).status, 503)
    const list = await lonely.ask('GET', '/api/users')
    assert.equal(list.status, 503)
    assert.equal(list.body.error.code, 'database_unavailable')
    assert.equal((await lonely.stop()).code, 0)
    assert.ok(lonely.errors.length >= 3)
  })

  test('a purchase is created, listed, read and deleted', async () => {
    const contribution = { contributionAmount: 250, tokensConsumed: 90.25 }
    const created = await server.ask('POST', '/api/purchases', { ...PURCHASE, userId: user.id, contribution })
    assert.equal(created.status, 201)
    assert.equal(created.body.contribution.tokensConsumed, 90.25)
    const address = `/api/purchases/${created.body.id}`
    assert.deepEqual((await server.ask('GET', address)).body, created.body)
    assert.equal((await server.ask('GET', '/api/purchases?limit=1')).body.purchases.length, 1)
    assert.equal((await server.ask('DELETE', address)).status, 204)
    assert.equal((await server.ask('GET', address)).status, 404)
    assert.equal((await server.ask('DELETE', address)).status, 404)
  })

  test('bad input is answered by 400 and says what is wrong', async () => {
    const cases = [
      [{ ...PURCHASE, userId: user.id, totalTokens: 'many' }, /totalTokens must be a number/],
      [{ ...PURCHASE, userId: user.id, totalPayment: -1 }, /totalPayment must be a number, zero or more/],
      [{ ...PURCHASE, userId: user.id, purchaseDate: 'yesterday' }, /purchaseDate must be a date/],
      [{ ...PURCHASE, userId: user.id, price: 1 }, /price is unknown; known are userId/],
      [{ ...PURCHASE, userId: 'nobody' }, /userId names no user/],
      [{ ...PURCHASE, userId: 'a\0b' }, /NUL/],
      [PURCHASE, /userId is missing/],
      ['{', /not JSON/],
      ['[]', /not a JSON object/],
    ]
    for (const [body, message] of cases) {
      const answer = await server.ask('POST', '/api/purchases', body)
      assert.equal(answer.status, 400, JSON.stringify(body))
      assert.match(answer.body.error.message, message)
    }
    for (const limit of ['0', '-1', 'all', '501', '1e1']) {
      assert.equal((await server.ask('GET', `/api/purchases?limit=${limit}`)).status, 400, limit)
    }
    assert.equal((await server.ask('GET', '/api/purchases/%00')).status, 400)
    assert.equal((await server.ask('GET', '/api/purchases/%zz')).status, 400)
  })

  test('what does not exist is 404, a wrong method 405, a second user of one address 409, a huge body 413', async () => {
    assert.equal((await server.ask('GET', '/api/nothing')).status, 404)
    assert.equal((await server.ask('GET', '/api/users/nobody')).status, 404)
    assert.equal((await server.ask('PATCH', '/api/users', {})).status, 405)
    assert.equal((await server.ask('POST', '/api/users', { email: user.email })).status, 409)
    assert.equal((await server.ask('POST', '/api/users', JSON.stringify({ name: 'x'.repeat(70000) }))).status, 413)
  })

  test('connections that are cut are replaced', async () => {
    assert.equal((await server.ask('GET', '/api/health')).status, 200)
    const client = new pg.Client({ connectionString: process.env.DATABASE_URL })
    await client.connect()
    const { rows } = await client.query(
      `SELECT pg_terminate_backend(pid) AS cut FROM pg_stat_activity
        WHERE datname = current_database() AND application_name = 'electricity-tokens'`,
    )
    await client.end()
    assert.ok(rows.length >= 1)
    const statuses = []
    for (let i = 0; i < 3; i++) statuses.push((await server.ask('GET', '/api/health')).status)
    assert.ok(statuses.every((status) => [200, 503].includes(status)), String(statuses))
    assert.equal(statuses.at(-1), 200)
  })
})

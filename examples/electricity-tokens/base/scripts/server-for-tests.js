// Copyright: the backstop.postgres contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

'use strict'
// For tests: starts the server on a free port with the DATABASE_URL of the environment (a migrated database), asks it.
const { spawn } = require('node:child_process')
const net = require('node:net')
const path = require('node:path')
const readline = require('node:readline')

async function freePort() {
  const server = net.createServer()
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address()
  await new Promise((resolve) => server.close(resolve))
  return port
}

/** Starts the server and waits until it listens. */
async function startServer(environment = {}) {
  if (!process.env.DATABASE_URL) throw new Error('DATABASE_URL must name a migrated database for these tests')
  const port = await freePort()
  const script = path.join(path.dirname(__dirname), 'src', 'server.js')
  const env = { ...process.env, PORT: String(port), ...environment }
  const child = spawn(process.execPath, [script], { env, stdio: ['ignore', 'pipe', 'pipe'] })
  const errors = []
  readline.createInterface({ input: child.stderr }).on('line', (line) => errors.push(line))
  const ended = new Promise((resolve) => child.on('exit', (code, signal) => resolve({ code, signal })))
  const listening = new Promise((resolve) => {
    readline.createInterface({ input: child.stdout }).on('line', (line) => line.includes('"listening"') && resolve('listening'))
  })
  if ((await Promise.race([listening, ended])) !== 'listening') throw new Error(`the server did not start: ${errors.join(' ')}`)

  async function ask(method, address, body) {
    const content = body === undefined ? undefined : typeof body === 'string' ? body : JSON.stringify(body)
    const answer = await fetch(`http://127.0.0.1:${port}${address}`, { method, body: content })
    const text = await answer.text()
    return { status: answer.status, body: text ? JSON.parse(text) : undefined }
  }
  async function stop(signal = 'SIGTERM') {
    child.kill(signal)
    return ended
  }
  return { ask, stop, errors, port }
}

module.exports = { startServer }

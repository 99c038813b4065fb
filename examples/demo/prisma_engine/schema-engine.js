// Copyright: the backstop.postgres contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

'use strict'
// Stands in for Prisma's native `schema-engine` program: the same command line and the same JSON-RPC on standard
// input and output. Each request is answered by Prisma's own engine compiled to WebAssembly
// (@prisma/schema-engine-wasm). PostgreSQL only; made for Prisma 6.19.3 and 7.10.0.
//
// The WebAssembly build leaves a few things to its host, and those are done here: connecting, sending a migration
// as one query, creating databases, and the wording of the errors that the native program gives for these.
// Node 18 has these elsewhere; without them the engine panics, and its words are lost.
globalThis.crypto ??= require('node:crypto').webcrypto
globalThis.PRISMA_WASM_PANIC_REGISTRY = { set_message: (text) => process.stderr.write(`${text}\n`) }

const readline = require('node:readline')
const { parseArguments } = require('./lib/arguments')
const { Engine, version } = require('./lib/engine')
const { checkConnection, createDatabase } = require('./lib/connection')

const send = (message) => process.stdout.write(JSON.stringify(message) + '\n')
const print = (content) => send({ jsonrpc: '2.0', method: 'print', params: { content }, id: 0 })

function log(level, fields, target) {
  process.stderr.write(JSON.stringify({ timestamp: new Date().toISOString(), level, fields, target }) + '\n')
}

/** `schema-engine cli can-connect-to-database` and `create-database`: the exit status answers. */
async function runCommand(options) {
  const url = options.datasourceUrl()
  try {
    if (options.command === 'can-connect-to-database') {
      await checkConnection(url)
      log('INFO', { message: 'Connection successful' }, 'schema_engine::commands::cli')
    } else if (options.command === 'create-database') {
      const name = await createDatabase(url)
      log('INFO', { message: `Database '${name}' was successfully created.` }, 'schema_engine::commands::cli')
    } else {
      throw new Error(`Unknown command: ${options.command}`)
    }
    return 0
  } catch (error) {
    log('ERROR', { is_panic: false, error_code: error.code ?? '', message: error.message }, 'schema_engine::logger')
    return 1
  }
}

function failure(id, error) {
  const data = {
    is_panic: false,
    message: error.message ?? String(error),
    meta: error.meta ?? null,
    error_code: error.code ?? null,
  }
  return { jsonrpc: '2.0', error: { code: 4466, message: 'An error happened. Check the data field for details.', data }, id }
}

/** Answers requests one after another until standard input ends. */
function serve(options) {
  const engine = new Engine(options, print)
  let queue = Promise.resolve()
  const lines = readline.createInterface({ input: process.stdin })
  lines.on('line', (line) => {
    let request
    try {
      request = JSON.parse(line)
    } catch {
      return
    }
    if (!request.method) return // the answer to our "print"
    queue = queue.then(async () => {
      try {
        send({ jsonrpc: '2.0', result: await engine.handle(request.method, request.params), id: request.id })
      } catch (error) {
        send(failure(request.id, error))
      }
    })
  })
  lines.on('close', () => queue.then(() => process.exit(0)))
}

async function main() {
  const options = parseArguments(process.argv.slice(2))
  if (options.version) {
    console.log(`schema-engine-cli ${version}`)
    return
  }
  const mode = options.command ? 'CLI' : 'RPC server'
  log('INFO', { message: `Starting schema engine ${mode}`, git_hash: version }, 'schema_engine')
  if (options.command) process.exit(await runCommand(options))
  serve(options)
}

main()

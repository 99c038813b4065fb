// Copyright: the backstop.postgres contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

'use strict'
// Requests to routes: finds the route, reads the JSON body, writes the answer, turns errors into answers.
const { HttpError, badRequest, fromPrisma } = require('./errors')
const log = require('./log')

const LARGEST_BODY = 64 * 1024

async function readBody(request) {
  const blocks = []
  let size = 0
  for await (const block of request) {
    size += block.length
    if (size > LARGEST_BODY) throw new HttpError(413, 'too_large', `The body is larger than ${LARGEST_BODY} bytes`)
    blocks.push(block)
  }
  let body
  try {
    body = JSON.parse(Buffer.concat(blocks).toString('utf8'))
  } catch {
    throw badRequest('The body is not JSON')
  }
  if (body === null || typeof body !== 'object' || Array.isArray(body)) throw badRequest('The body is not a JSON object')
  return body
}

function segmentsOf(pathname) {
  try {
    return pathname.split('/').filter(Boolean).map(decodeURIComponent)
  } catch {
    throw badRequest('The path is not well encoded')
  }
}

/** Values of the pattern's :names when it fits the path, else null. */
function match(pattern, segments) {
  const parts = pattern.split('/').filter(Boolean)
  if (parts.length !== segments.length) return null
  const parameters = {}
  for (let i = 0; i < parts.length; i++) {
    if (parts[i].startsWith(':')) parameters[parts[i].slice(1)] = segments[i]
    else if (parts[i] !== segments[i]) return null
  }
  return parameters
}

function findRoute(routes, method, pathname) {
  const segments = segmentsOf(pathname)
  if (segments.some((segment) => segment.includes('\0'))) throw badRequest('The path holds a NUL character')
  const fitting = routes.map((route) => ({ route, parameters: match(route.path, segments) })).filter((one) => one.parameters)
  const found = fitting.find((one) => one.route.method === method)
  if (found) return found
  if (fitting.length) throw new HttpError(405, 'method_not_allowed', `${method} is not possible here`)
  throw new HttpError(404, 'not_found', 'There is nothing at this address')
}

function write(response, status, body) {
  const text = body === undefined ? '' : JSON.stringify(body)
  response.writeHead(status, { 'content-type': 'application/json; charset=utf-8', 'content-length': Buffer.byteLength(text) })
  response.end(text)
}

function writeError(request, response, error) {
  const known = error instanceof HttpError ? error : fromPrisma(error)
  const answer = known instanceof HttpError ? known : new HttpError(500, 'internal_error', 'Something went wrong here')
  if (answer.status >= 500) {
    log.error('request failed', { method: request.method, url: request.url, status: answer.status, reason: error.message })
  }
  const { code, message, fields } = answer
  if (!response.headersSent) write(response, answer.status, { error: { code, message, ...(fields && { fields }) } })
}

async function answer(routes, request) {
  const url = new URL(request.url, 'http://localhost')
  const { route, parameters } = findRoute(routes, request.method, url.pathname)
  const body = ['POST', 'PATCH'].includes(request.method) ? await readBody(request) : undefined
  return route.handle({ parameters, query: url.searchParams, body })
}

/** A listener for http.createServer. */
function answerRequests(routes) {
  return async (request, response) => {
    const started = process.hrtime.bigint()
    response.on('finish', () => {
      const milliseconds = Number(process.hrtime.bigint() - started) / 1e6
      log.info('request', { method: request.method, url: request.url, status: response.statusCode, milliseconds })
    })
    try {
      const { status = 200, body } = await answer(routes, request)
      write(response, status, body)
    } catch (error) {
      writeError(request, response, error)
    }
  }
}

module.exports = { answerRequests }

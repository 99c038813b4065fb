// A small application for tests: health, items that can be made and removed, settings from environment or .env.
const fs = require('fs')
const http = require('http')

const file = fs.existsSync('.env') ? fs.readFileSync('.env', 'utf8') : ''
const settings = Object.fromEntries(file.split('\n').filter((line) => line.includes('=')).map((line) => {
  const at = line.indexOf('=')
  return [line.slice(0, at), line.slice(at + 1)]
}))
const setting = (name) => process.env[name] || settings[name]
const behaviour = setting('BEHAVIOUR')
const items = new Map()
let last = 0

if (behaviour === 'crash') {
  console.error('fatal: cannot connect with ' + setting('DATABASE_URL'))
  process.exit(3)
}

function answer (response, status, content) {
  response.writeHead(status, { 'Content-Type': 'application/json' })
  response.end(JSON.stringify(content))
}

function health (response) {
  const broken = behaviour === 'unhealthy'
  answer(response, broken ? 503 : 200, {
    status: broken ? 'error' : 'ok', version: VERSION, pid: process.pid, seen: Object.keys(process.env).sort()
  })
}

function change (request, response) {
  let text = ''
  request.on('data', (part) => { text += part })
  request.on('end', () => {
    const item = { id: 'item ' + (++last), ...JSON.parse(text) }
    items.set(item.id, item)
    answer(response, 201, { item, list: [1, { two: 2 }], flag: true })
  })
}

const VERSION = require('./version.json').version
http.createServer((request, response) => {
  const url = new URL(request.url, 'http://localhost')
  const id = decodeURIComponent(url.pathname.split('/')[2] || '')
  if (url.pathname === '/api/health') return health(response)
  if (url.pathname === '/away') {
    response.writeHead(302, { Location: 'http://127.0.0.1:1/elsewhere' })
    return response.end()
  }
  if (url.pathname === '/secret') return answer(response, 500, { said: request.headers.authorization })
  if (url.pathname === '/text') return response.end('no JSON here')
  if (url.pathname === '/silent') return
  if (url.pathname === '/large') return response.end('"' + 'x'.repeat(2000000) + '"')
  if (url.pathname === '/items' && request.method === 'POST') return change(request, response)
  if (url.pathname === '/items') return answer(response, 200, { count: items.size })
  if (!items.has(id)) return answer(response, 404, { error: 'no ' + id })
  if (request.method === 'DELETE' && items.get(id).keep) return answer(response, 409, { error: 'kept' })
  if (request.method === 'DELETE') items.delete(id)
  answer(response, 200, items.get(id) || { removed: id })
}).listen(Number(setting('PORT')), '127.0.0.1', () => console.log('listening'))

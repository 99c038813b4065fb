// The build step: puts the program where the ecosystem file expects it, or fails when the environment wants it to.
const fs = require('fs')
fs.mkdirSync('dist', { recursive: true })
fs.copyFileSync('server.js', 'dist/server.js')
fs.copyFileSync('version.json', 'dist/version.json')
if (process.env.BUILD === 'fail') {
  console.log('server.js(1,1): error TS2304: cannot find name')
  console.error('build failed for ' + fs.readFileSync('.env', 'utf8').trim())
  process.exit(2)
}
fs.writeFileSync('dist/built-with.json', JSON.stringify({ label: process.env.LABEL || null, path: process.env.PATH }))

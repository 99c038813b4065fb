module.exports = {
  apps: [
    { name: 'tiny', script: 'dist/server.js', max_restarts: 3, min_uptime: 2000, kill_timeout: 3000 },
    { name: 'another', script: 'dist/server.js', env: { PORT: '1' } }
  ]
}

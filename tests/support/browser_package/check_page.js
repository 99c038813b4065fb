// Opens pages in Chromium as people would, and reports what the browser complains about.
//
//   node check_page.js CHROMIUM REQUESTS.json
//
// REQUESTS: a list of {page, width, height, dark, print, screenshot}. Prints a list with, for each: console (messages and
// errors), requests (addresses other than the page's own), violations (of axe-core), overflow (pixels that the page is
// wider than its window).
'use strict'

const fs = require('fs')
const { pathToFileURL } = require('url')
const puppeteer = require('puppeteer-core')

const AXE = fs.readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8')

async function check (browser, wanted) {
  const page = await browser.newPage()
  const found = { console: [], requests: [] }
  const address = pathToFileURL(wanted.page).href
  page.on('console', message => found.console.push(message.text()))
  page.on('pageerror', error => found.console.push(String(error)))
  page.on('request', request => {
    if (request.url() !== address && !request.url().startsWith('data:')) found.requests.push(request.url())
  })
  await page.setViewport({ width: wanted.width, height: wanted.height || 900 })
  await page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: wanted.dark ? 'dark' : 'light' }])
  // No page of ours needs scripts; axe-core runs through the debugger all the same.
  await page.goto(address, { waitUntil: 'load' })
  found.overflow = await page.evaluate(() => document.documentElement.scrollWidth) - wanted.width
  await page.evaluate(AXE)
  const result = await page.evaluate(() => window.axe.run(document, { resultTypes: ['violations', 'incomplete'] }))
  const told = one => ({ rule: one.id, help: one.help, nodes: one.nodes.slice(0, 3).map(node => node.html.slice(0, 200)) })
  found.violations = result.violations.map(told)
  found.passes = result.passes.length
  if (wanted.screenshot) {
    await page.screenshot({ path: wanted.screenshot, fullPage: !wanted.height })
  }
  if (wanted.pdf) {
    const content = await page.pdf({ path: wanted.pdf, preferCSSPageSize: true, printBackground: true })
    found.pdf = content.length
  }
  await page.close()
  return found
}

async function main () {
  const [executablePath, requests] = process.argv.slice(2)
  // Chromium refuses its sandbox to root, as in containers of CI systems.
  const args = process.getuid() === 0 ? ['--no-sandbox'] : []
  const browser = await puppeteer.launch({ executablePath, args: [...args, '--force-color-profile=srgb'] })
  try {
    const found = []
    for (const wanted of JSON.parse(fs.readFileSync(requests, 'utf8'))) found.push(await check(browser, wanted))
    console.log(JSON.stringify(found))
  } finally {
    await browser.close()
  }
}

main().catch(error => { console.error(error); process.exitCode = 1 })

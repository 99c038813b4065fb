// Copyright: the backstop.postgres contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

'use strict'
// All routes of the API.
const health = require('./health')
const purchases = require('./purchases')
const receipts = require('./receipts')
const users = require('./users')

const routes = (context) => [...health(context), ...users(context), ...purchases(context), ...receipts(context)]

module.exports = { routes }

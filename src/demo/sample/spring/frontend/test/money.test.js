import assert from 'node:assert/strict'
import { test } from 'node:test'
import { euros } from '../src/money.js'

test('cents have two digits', () => {
  assert.equal(euros(2450), '24.50 €')
})

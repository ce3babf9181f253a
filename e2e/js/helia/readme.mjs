// Loaded before the README's own script, which is run as it is printed. What
// it calls `createHelia` would join the public network; here it gets the Helia
// of the other tests, which listens on loopback and knows nobody.
import { registerHooks } from 'node:module'

registerHooks({
  resolve (specifier, context, next) {
    if (specifier !== 'helia' || !context.parentURL?.endsWith('/pin-as-printed.mjs')) return next(specifier, context)
    return { url: new URL('./peer.mjs', import.meta.url).href, format: 'module', shortCircuit: true }
  }
})

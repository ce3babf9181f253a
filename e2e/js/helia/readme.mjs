// Loaded before the README's own script, which is run as it is printed. What
// it calls `createHelia` would join the public network; here the same Helia
// listens on loopback and knows nobody.
import { registerHooks } from 'node:module'

const SOURCE = `
  import { noise } from '@chainsafe/libp2p-noise'
  import { yamux } from '@chainsafe/libp2p-yamux'
  import { bitswap } from '@helia/block-brokers'
  import { identify } from '@libp2p/identify'
  import { tcp } from '@libp2p/tcp'
  import { createHelia as create } from 'helia'
  import { createLibp2p } from 'libp2p'

  export async function createHelia () {
    const libp2p = await createLibp2p({
      addresses: { listen: ['/ip4/127.0.0.1/tcp/0'] },
      transports: [tcp()],
      connectionEncrypters: [noise()],
      streamMuxers: [yamux()],
      services: { identify: identify() }
    })
    return create({ libp2p, blockBrokers: [bitswap()], routers: [] })
  }
`
const STAND_IN = `data:text/javascript,${encodeURIComponent(SOURCE)}`

registerHooks({
  resolve (specifier, context, next) {
    if (context.parentURL === STAND_IN) return next(specifier, { ...context, parentURL: import.meta.url })
    if (specifier === 'helia' && context.parentURL?.endsWith('/pin-as-printed.mjs')) {
      return { url: STAND_IN, format: 'module', shortCircuit: true }
    }
    return next(specifier, context)
  }
})

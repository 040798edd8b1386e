import { euros } from './money.js'

const text = async (path) => (await fetch(path)).text()

document.querySelector('#greeting').textContent = await text('/api')
document.querySelector('#price').textContent = euros(Number(await text('/api/price?quantity=10')))

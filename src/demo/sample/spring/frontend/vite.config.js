// Top-level await needs more than Vite's default of browsers.
export default { build: { target: 'es2022' } }

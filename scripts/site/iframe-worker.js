// Browsers start no worker from a disk: there a hidden frame runs the script of the search.
if (location.protocol === "file:") {
  const hand = (target, data) => {
    const event = new MessageEvent("message", { data: structuredClone(data) });
    setTimeout(() => target()?.onmessage?.(event)); // as late as a worker would
  };
  window.Worker = class {
    constructor(address) {
      this.waiting = [];
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.documentElement.append(this.frame);
      const inner = this.frame.contentWindow;
      inner.postMessage = (data) => hand(() => this, data);
      const script = inner.document.createElement("script");
      script.onload = () => {
        this.ready = true;
        this.waiting.forEach((data) => this.postMessage(data));
      };
      script.onerror = () => this.onerror?.(new ErrorEvent("error"));
      script.src = new URL(address, location);
      inner.document.head.append(script);
    }
    postMessage(data) {
      if (this.ready) hand(() => this.frame.contentWindow, data);
      else this.waiting.push(data);
    }
    terminate() {
      this.frame.remove();
    }
  };
}

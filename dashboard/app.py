"""The dashboard's entry point: `hkdbench dashboard` runs it under Streamlit. Every page is a file in `views/`."""

import streamlit as st

from dashboard import navigation, options
from dashboard.data import store

BARS = ((3, 16, "56B4E9"), (12, 4, "0072B2"), (21, 22, "E69F00"))
ICON = "data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 32 32'>{}</svg>".format(
    "".join(f"<path fill='%23{colour}' d='M{left} {top}h8V30h-8z'/>" for left, top, colour in BARS)
)
"""The icon of the browser tab, as a URL that holds it: of a file of its own the browser may find it gone."""

ABOUT = "hkdbench: how to train small vision-language models from larger ones. The dashboard only reads the store."
"""The entry without which Streamlit shows no menu, and so no choice between light and dark."""

st.set_page_config(page_title="hkdbench", page_icon=ICON, layout="wide", menu_items={"About": ABOUT})
if st.context.theme.type == "dark":  # otherwise a selected value is white on light blue, which is hard to read
    st.html("<style>[data-testid='stMultiSelectTagsContainer'] [data-tag] * { color: #0e1116 !important }</style>")
with store.show_user_errors():
    options.load_plugins()
    if options.note():
        st.info(options.note(), icon=":material/science:")
    page = navigation.navigate()
    navigation.keep_place()
    page.run()

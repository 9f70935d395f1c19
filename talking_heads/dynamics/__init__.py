"""How attention learns: what "On the Dynamics of Training Attention Models" (Lu, Mao, Nayak, 2021) says, and what is measured.

synthetic.py    the paper's experiments: the persisting identity, frozen parts, trained query, other starts
mixing.py       several heads, and maps across them: which law survives
text.py         real text: which words are attended to, when
transformer.py  a transformer during its training
report.py       tables, figures, report.html, from results.json alone

bags.py, model.py, train.py, identity.py, words.py: data, model, gradient descent, theory, real words
"""
